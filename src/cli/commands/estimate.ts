import { defineCommand } from '../command.js';
import { heading, paragraphs } from '../format.js';
import * as option from '../options.js';
import { policyOf, policyOptions } from '../policy.js';

const options = {
  hw: option.required(option.hardwareOption),
  model: option.required(option.modelOption),
  ...option.workloadOptions,
  ...policyOptions,
  ...option.capacityOptions,
};

export const estimateCommand = defineCommand({
  name: 'estimate',
  summary: 'what the cost model says of one given policy',
  example:
    'flexplan estimate --hw t4 --model facebook/opt-30b --prompt-tokens 512 --gen-tokens 32 --percent 20 80 0 100 0 100 --gpu-batch-size 48 --num-gpu-batches 3 --cpu-attention 1',
  options,
  async run(given) {
    const { estimate } = await import('../../cost-model/estimate.js');
    const { capacityBytes } = await import('../../hardware/check-profile.js');
    const { cappedProfile } = await import('../hardware.js');
    const { loadModel } = await import('../model.js');
    const { chosenWorkload } = await import('../workload.js');
    const text = await import('../estimate-text.js');
    const policy = await policyOf(given);
    const hardware = cappedProfile(given.hw, given);
    const model = await loadModel(given.model);
    const workload = await chosenWorkload(given, model);
    const result = estimate(model, hardware, workload, policy);
    const capacity = capacityBytes(hardware);
    const tiers = text.tiersOf(capacity);
    return {
      document: {
        schemaVersion: 1,
        source: 'estimated',
        model,
        hardware: { name: hardware.name, device: hardware.device, capacityBytes: capacity },
        workload,
        policy,
        estimate: result,
      },
      text: () =>
        paragraphs(
          heading(`${model.name} on ${text.machineName(hardware)}: ${text.throughputLine(result)}`),
          text.policyTable(policy),
          text.placementTable(policy.placement, tiers),
          text.phaseTable(result),
          text.memoryTable(result, capacity, tiers),
        ),
    };
  },
});
