/** The policy of someone who has none: everything in the memory of the device. */
import { type Policy, QUANT_GROUP_SIZE, type TierFractions } from '../policy/policy.js';
import type { Device } from '../tiers.js';

/** More sequences than this in one launch gain little and cost workspace. */
const MAX_GPU_BATCH_SIZE = 32;

export function everythingInMemory(device: Device, numSequences: number): Policy {
  const all: TierFractions = device === 'cpu' ? { gpu: 0, cpu: 1, disk: 0 } : { gpu: 1, cpu: 0, disk: 0 };
  return {
    gpuBatchSize: Math.min(numSequences, MAX_GPU_BATCH_SIZE),
    numGpuBatches: 1,
    placement: { weights: all, kvCache: all, activations: all },
    weightBits: 16,
    kvCacheBits: 16,
    quantGroupSize: QUANT_GROUP_SIZE,
    cpuAttentionFraction: 0,
    overlap: true,
  };
}
