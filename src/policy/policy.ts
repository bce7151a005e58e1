/** How a job is run: batch shape, placement, quantization, where attention runs. */
import { VALUES_PER_QUANT_GROUP } from '../models/tensors.js';
import type { Tier } from '../tiers.js';

export type TensorClass = 'weights' | 'kvCache' | 'activations';
export const TENSOR_CLASSES: readonly TensorClass[] = ['weights', 'kvCache', 'activations'];

/** Shares of one tensor class on the three tiers; they sum to 1. */
export type TierFractions = Readonly<Record<Tier, number>>;

export type Placement = Readonly<Record<TensorClass, TierFractions>>;
export type TierBytes = Record<Tier, number>;

export const SCHEDULES = ['zigzag', 'diagonal'] as const;
export type Schedule = (typeof SCHEDULES)[number];

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
  /**
   * At prefill the sequences of a GPU batch go through a layer in chunks of at most so many prompt tokens. Absent:
   * 2048.
   */
  readonly prefillChunkTokens?: number;
  /**
   * Each query of each head reads V only of this share of its positions, those with the highest scores
   * (docs/quantization.md). Above 0; absent or 1: of all. It changes results, so the planner never chooses it, and
   * estimates do not count what it saves. Not on a CUDA device.
   */
  readonly sparseValueFraction?: number;
  /**
   * zigzag: blocks one after the other. diagonal: one block in the memory of these, where waiting sequences enter as
   * others end. Absent: zigzag.
   */
  readonly schedule?: Schedule;
  /** Run the six tasks concurrently. */
  readonly overlap: boolean;
}

export const QUANT_GROUP_SIZE = VALUES_PER_QUANT_GROUP;

/** As `prefillChunkTokens`: systems that do not cut a GPU batch into chunks. */
export const UNCUT_PREFILL = Number.MAX_SAFE_INTEGER;
const DEFAULT_PREFILL_CHUNK_TOKENS = 2048;

/** The policy's, or what holds without one. */
export function prefillChunkTokens(policy: Pick<Policy, 'prefillChunkTokens'>): number {
  return policy.prefillChunkTokens ?? DEFAULT_PREFILL_CHUNK_TOKENS;
}

/** Whether waiting sequences enter a block as others end. */
export function isDiagonal(policy: Pick<Policy, 'schedule'>): boolean {
  return policy.schedule === 'diagonal';
}

export function blockSize(policy: Pick<Policy, 'gpuBatchSize' | 'numGpuBatches'>): number {
  return policy.gpuBatchSize * policy.numGpuBatches;
}
