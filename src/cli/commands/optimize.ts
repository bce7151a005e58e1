import { defineCommand } from '../command.js';
import { paragraphs } from '../format.js';
import * as option from '../options.js';

const options = {
  hw: option.required(option.hardwareOption),
  model: option.required(option.modelOption),
  ...option.workloadOptions,
  ...option.capacityOptions,
  weightBits: option.bitsOrAuto('--weight-bits <bits>', '16, 4, or auto for the better (default: 16)'),
  kvBits: option.bitsOrAuto('--kv-bits <bits>', '16, 4, or auto for the better (default: 16)'),
  maxLatencySeconds: option.number(
    '--max-latency-seconds <s>',
    'latency: a block, from its start to its last token, may take at most so long',
  ),
  gpuBatchSize: option.count('--gpu-batch-size <n>', 'fix the sequences in one launch'),
  numGpuBatches: option.count('--num-gpu-batches <n>', 'fix the GPU batches of a block'),
  ...option.sparseValuesOptions,
  out: option.text('--out <file>', 'write the plan, for flexplan run'),
  pareto: option.flag('--pareto', 'also list throughput against the latency of a block'),
  explain: option.flag('--explain', 'say in words why this plan'),
};

export const optimizeCommand = defineCommand({
  name: 'optimize',
  summary: 'find the plan with the most generated tokens per second',
  example:
    'flexplan optimize --hw t4 --model facebook/opt-30b --prompt-tokens 512 --gen-tokens 32 --num-sequences 1024 --out plan.json',
  options,
  async run(given, context) {
    const { paretoOf, planJob } = await import('../plan-job.js');
    const planned = await planJob(given);
    if (planned.status === 'infeasible') return planned.result;
    const { plan } = planned;
    if (given.out !== undefined) {
      const { writeJson } = await import('../files.js');
      writeJson(given.out, plan);
      context.note(`Plan written to ${given.out}`);
    }
    const points = given.pareto ? await paretoOf(given) : undefined;
    const explanation = given.explain ? (await import('../../solver/explain.js')).explain(plan) : undefined;
    const { explanationText, paretoTable, planText } = await import('../plan-text.js');
    return {
      document: { ...plan, ...(points && { pareto: points }), ...(explanation && { explanation }) },
      text: () =>
        paragraphs(planText(plan), points && paretoTable(points), explanation && explanationText(explanation)),
    };
  },
});
