/** How a job is run: batch shape, placement, quantization, where attention runs. */
import { VALUES_PER_QUANT_GROUP } from '../models/tensors.js';
import type { Tier } from '../tiers.js';

export type TensorClass = 'weights' | 'kvCache' | 'activations';
export const TENSOR_CLASSES: readonly TensorClass[] = ['weights', 'kvCache', 'activations'];

/** Shares of one tensor class on the three tiers; they sum to 1. */
export type TierFractions = Readonly<Record<Tier, number>>;

export type Placement = Readonly<Record<TensorClass, TierFractions>>;
export type TierBytes = Record<Tier, number>;

export interface Policy {
  /** Sequences in one launch. */
  readonly gpuBatchSize: number;
  /** GPU batches that share one load of the weights; blockSize = gpuBatchSize * numGpuBatches. */
  readonly numGpuBatches: number;
  readonly placement: Placement;
  /** 16: stored in the model's own number format (also when that is fp32). */
  readonly weightBits: 16 | 4;
  readonly kvCacheBits: 16 | 4;
  readonly quantGroupSize: number;
  /** Of the KV cache on the cpu tier, the share attended by the CPU; the rest is moved to the GPU. */
  readonly cpuAttentionFraction: number;
  /** The same for the KV cache on the disk tier, after staging in RAM. Absent: 0. */
  readonly diskKvCpuAttentionFraction?: number;
  /** Run the six tasks concurrently. */
  readonly overlap: boolean;
}

export const QUANT_GROUP_SIZE = VALUES_PER_QUANT_GROUP;

export function blockSize(policy: Pick<Policy, 'gpuBatchSize' | 'numGpuBatches'>): number {
  return policy.gpuBatchSize * policy.numGpuBatches;
}
