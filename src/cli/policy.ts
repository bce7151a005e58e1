/** `--policy`, or `--percent` and what belongs to it. */
import { FlexplanError } from '../errors.js';
import { QUANT_GROUP_SIZE, type Policy } from '../policy/policy.js';
import type { Options } from './command.js';
import { loadPolicy } from './documents.js';
import * as option from './options.js';

export const policyOptions = {
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
    'share of the KV cache in RAM and on disk that the CPU attends (default: 0)',
    0,
    1,
  ),
  overlap: option.flag('--no-overlap', 'transfers and computing one after the other'),
};

const SHAPE_OPTIONS = ['percent', 'gpuBatchSize', 'numGpuBatches', 'weightBits', 'kvBits', 'cpuAttention'] as const;

/** Throws `usage` when there is no policy, or more than one. */
export async function policyOf(given: Options<typeof policyOptions>): Promise<Policy> {
  const { policyFromPercent } = await import('../policy/check-policy.js');
  if (given.policy !== undefined) {
    const extra = SHAPE_OPTIONS.find((name) => given[name] !== undefined);
    if (extra)
      throw new FlexplanError(
        'usage',
        `expected --policy alone, got ${policyOptions[extra].flags.split(' ')[0]} too; leave one out`,
      );
    return loadPolicy(given.policy);
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
    diskKvCpuAttentionFraction: given.cpuAttention ?? 0,
    overlap: given.overlap ?? true,
  });
}
