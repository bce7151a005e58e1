import { FlexplanError } from '../../errors.js';
import { QUANT_GROUP_SIZE, type Policy } from '../../policy/policy.js';
import { defineCommand, type Options } from '../command.js';
import { heading, paragraphs } from '../format.js';
import * as option from '../options.js';

const options = {
  hw: option.required(option.hardwareOption),
  model: option.required(option.modelOption),
  ...option.workloadOptions,
  policy: option.text('--policy <file>', 'the policy (or a plan, of which the policy is taken)'),
  percent: option.list(
    '--percent <numbers...>',
    'wg wc cg cc hg hc: percent of weights, KV cache and activations on GPU and CPU; the rest is disk',
    option.readNumber(0, 100),
  ),
  gpuBatchSize: option.count('--gpu-batch-size <n>', 'sequences in one launch, with --percent'),
  numGpuBatches: option.count('--num-gpu-batches <n>', 'GPU batches of a block, with --percent (default: 1)'),
  weightBits: option.bits('--weight-bits <bits>', '16 or 4 (default: 16)'),
  kvBits: option.bits('--kv-bits <bits>', '16 or 4 (default: 16)'),
  cpuAttention: option.number(
    '--cpu-attention <fraction>',
    'share of the KV cache in RAM that the CPU attends (default: 0)',
    0,
    1,
  ),
  overlap: option.flag('--no-overlap', 'transfers and computing one after the other'),
  ...option.capacityOptions,
};

const SHAPE_OPTIONS = ['percent', 'gpuBatchSize', 'numGpuBatches', 'weightBits', 'kvBits', 'cpuAttention'] as const;

async function policyOf(given: Options<typeof options>): Promise<Policy> {
  const { policyFromPercent } = await import('../../policy/check-policy.js');
  if (given.policy !== undefined) {
    const extra = SHAPE_OPTIONS.find((name) => given[name] !== undefined);
    if (extra)
      throw new FlexplanError(
        'usage',
        `expected --policy alone, got ${options[extra].flags.split(' ')[0]} too; leave one out`,
      );
    return (await import('../documents.js')).loadPolicy(given.policy);
  }
  if (given.percent === undefined || given.gpuBatchSize === undefined)
    throw new FlexplanError(
      'usage',
      'expected --policy FILE, or --percent with --gpu-batch-size, got neither; for example --percent 20 80 0 100 0 100 --gpu-batch-size 48 --num-gpu-batches 3',
    );
  return policyFromPercent(given.percent, {
    gpuBatchSize: given.gpuBatchSize,
    numGpuBatches: given.numGpuBatches ?? 1,
    weightBits: given.weightBits ?? 16,
    kvCacheBits: given.kvBits ?? 16,
    quantGroupSize: QUANT_GROUP_SIZE,
    cpuAttentionFraction: given.cpuAttention ?? 0,
    overlap: given.overlap ?? true,
  });
}

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
          heading(`${model.name} on ${hardware.name}: ${text.throughputLine(result)}`),
          text.policyTable(policy),
          text.placementTable(policy.placement, tiers),
          text.phaseTable(result),
          text.memoryTable(result, capacity, tiers),
        ),
    };
  },
});
