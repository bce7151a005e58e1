/**
 * FlexGen's cost model as later released with its code: the paper's terms with separate rates for KV cache and hidden
 * states, prefill and decode; weight loads that do not overlap the rest of decode; a CPU rate that falls with small
 * batches.
 */
import type { ModelConfig } from '../../models/model-config.js';
import type { Policy } from '../../policy/policy.js';
import type { Phase, Tier } from '../../tiers.js';
import { GIB, TERA } from '../../units.js';
import type { Workload } from '../../workload/workload.js';
import { blockEstimate, type FlexGenEstimate } from './flexgen-paper.js';
import {
  cpuWorkingBytes,
  flexGenTerms,
  homeBytes,
  layerWeightBytes,
  tokenHiddenBytes,
  tokenKvBytes,
  type FlexGenTerms,
} from './flexgen-terms.js';

export interface FlexGenReleasedRates {
  readonly cpuToGpuBytesPerSecond: number;
  readonly gpuToCpuKvBytesPerSecond: number;
  readonly gpuToCpuHiddenBytesPerSecond: number;
  readonly diskToCpuBytesPerSecond: number;
  readonly cpuToDiskPrefillKvBytesPerSecond: number;
  readonly cpuToDiskPrefillHiddenBytesPerSecond: number;
  readonly cpuToDiskDecodeBytesPerSecond: number;
  readonly prefillMatmulFlopsPerSecond: number;
  readonly decodeMatmulFlopsPerSecond: number;
  readonly prefillAttentionFlopsPerSecond: number;
  readonly decodeGpuAttentionFlopsPerSecond: number;
  readonly cpuAttentionFlopsPerSecond: number;
  /**
   * Loss of the CPU rate: with both a small batch and a small hidden size, with a small batch, with a small hidden
   * size.
   */
  readonly cpuLoss: { readonly both: number; readonly batch: number; readonly hidden: number };
}

/** The constants that ship with it, fitted by its authors on a T4 machine. Its GB is 2^30. */
export const RELEASED_T4_RATES: FlexGenReleasedRates = {
  cpuToGpuBytesPerSecond: 12.89 * GIB,
  gpuToCpuKvBytesPerSecond: 0.97 * GIB,
  gpuToCpuHiddenBytesPerSecond: 4.82 * GIB,
  diskToCpuBytesPerSecond: 0.473 * GIB,
  cpuToDiskPrefillKvBytesPerSecond: 0.746 * GIB,
  cpuToDiskPrefillHiddenBytesPerSecond: 2.015 * GIB,
  cpuToDiskDecodeBytesPerSecond: 2.015 * GIB,
  prefillMatmulFlopsPerSecond: 21.24 * TERA,
  decodeMatmulFlopsPerSecond: 4.3 * TERA,
  prefillAttentionFlopsPerSecond: 9.97 * TERA,
  decodeGpuAttentionFlopsPerSecond: 0.079 * TERA,
  cpuAttentionFlopsPerSecond: 0.0123 * TERA,
  cpuLoss: { both: 0.0168, batch: 0.0328, hidden: 0.0621 },
};

const DECODE_WEIGHT_READ_EFFICIENCY = 0.95;
const LEAST_CPU_RATE_SHARE = 0.1;
const FULL_RATE_BATCH = 64;
const FULL_RATE_HIDDEN_SIZE = 4096;

/** Seconds of one layer as the alternatives whose largest counts; all of them affine in the nine fractions. */
export function releasedLayerSeconds(
  model: ModelConfig,
  workload: Workload,
  policy: Policy,
  rates: FlexGenReleasedRates = RELEASED_T4_RATES,
): Record<Phase, readonly number[]> {
  const terms = flexGenTerms(model, workload, policy);
  return {
    prefill: prefillAlternatives(terms, rates),
    decode: decodeAlternatives(terms, rates, cpuRateShare(policy.gpuBatchSize, model.hiddenSize, rates)),
  };
}

/** Of one block. */
export function estimateFlexGenReleased(
  model: ModelConfig,
  workload: Workload,
  policy: Policy,
  rates: FlexGenReleasedRates = RELEASED_T4_RATES,
): FlexGenEstimate {
  const { prefill, decode } = releasedLayerSeconds(model, workload, policy, rates);
  return blockEstimate(model, workload, policy, Math.max(...prefill), Math.max(...decode));
}

/** Tpre = max(ctog + dtoc, gtoc + ctod, comp). */
function prefillAlternatives({ linkBytes, flops }: FlexGenTerms, rates: FlexGenReleasedRates): number[] {
  const { cpuToGpu, gpuToCpu, diskToCpu, cpuToDisk } = linkBytes.prefill;
  const loads =
    (cpuToGpu.weights + cpuToGpu.activations) / rates.cpuToGpuBytesPerSecond +
    (diskToCpu.weights + diskToCpu.activations) / rates.diskToCpuBytesPerSecond;
  const stores =
    gpuToCpu.kvCache / rates.gpuToCpuKvBytesPerSecond +
    gpuToCpu.activations / rates.gpuToCpuHiddenBytesPerSecond +
    cpuToDisk.kvCache / rates.cpuToDiskPrefillKvBytesPerSecond +
    cpuToDisk.activations / rates.cpuToDiskPrefillHiddenBytesPerSecond;
  const compute =
    flops.prefill.matmul / rates.prefillMatmulFlopsPerSecond +
    flops.prefill.attention / rates.prefillAttentionFlopsPerSecond;
  return [loads, stores, compute];
}

/** Tgen = ctog + max(gtoc, dtoc, ctod, comp). */
function decodeAlternatives({ linkBytes, flops }: FlexGenTerms, rates: FlexGenReleasedRates, cpuShare: number) {
  const { cpuToGpu, gpuToCpu, diskToCpu, cpuToDisk } = linkBytes.decode;
  const loads = (cpuToGpu.weights + cpuToGpu.activations) / rates.cpuToGpuBytesPerSecond;
  const stores = gpuToCpu.activations / rates.gpuToCpuHiddenBytesPerSecond;
  const diskReads =
    (diskToCpu.kvCache + diskToCpu.activations) / rates.diskToCpuBytesPerSecond +
    diskToCpu.weights / (DECODE_WEIGHT_READ_EFFICIENCY * rates.diskToCpuBytesPerSecond);
  const diskWrites = (cpuToDisk.kvCache + cpuToDisk.activations) / rates.cpuToDiskDecodeBytesPerSecond;
  const compute =
    flops.decode.matmul / rates.decodeMatmulFlopsPerSecond +
    flops.decode.gpuAttention / rates.decodeGpuAttentionFlopsPerSecond +
    flops.decode.cpuAttention / (rates.cpuAttentionFlopsPerSecond * cpuShare);
  return [stores, diskReads, diskWrites, compute].map((seconds) => loads + seconds);
}

function cpuRateShare(gpuBatchSize: number, hiddenSize: number, { cpuLoss }: FlexGenReleasedRates): number {
  const smallBatch = Math.max(0, Math.log2(FULL_RATE_BATCH / gpuBatchSize));
  const smallHidden = Math.max(0, Math.log2(FULL_RATE_HIDDEN_SIZE / hiddenSize));
  const share = 1 + cpuLoss.both * smallBatch * smallHidden - cpuLoss.batch * smallBatch - cpuLoss.hidden * smallHidden;
  return Math.max(LEAST_CPU_RATE_SHARE, share);
}

/** Bytes each tier's capacity must hold: all of them affine in the nine fractions; a tier's largest counts. */
export function releasedPeakBytes(
  model: ModelConfig,
  workload: Workload,
  policy: Policy,
): Record<Tier, readonly number[]> {
  const { promptTokens: s, genTokens: n } = workload;
  const home = (tier: Tier, hiddenTokens: number, kvTokens: number) =>
    homeBytes(tier, hiddenTokens, kvTokens, model, policy);
  const gpuWorking = gpuWorkingBytes(model, workload, policy);
  const cpuWorking = cpuWorkingBytes(model, workload, policy);
  return {
    gpu: [home('gpu', s, s + n) + gpuWorking.prefill, home('gpu', 1, s + n) + gpuWorking.decode],
    cpu: [home('cpu', s, s) + cpuWorking.prefill, home('cpu', 1, s + n) + cpuWorking.decode],
    disk: [home('disk', s, s + n)],
  };
}

/** Unlike the paper's, a sum of all intermediates, and attention's in prefill whatever the placement. */
function gpuWorkingBytes(model: ModelConfig, workload: Workload, policy: Policy): Record<Phase, number> {
  const { hiddenSize: h1, ffnSize: h2, numHeads } = model;
  const { promptTokens: s, genTokens: n } = workload;
  const { weights, kvCache, activations } = policy.placement;
  const gbs = policy.gpuBatchSize;
  const weightBuffers = 2 * (1 - weights.gpu) * layerWeightBytes(model);
  const hiddenBuffer = (1 - activations.gpu) * tokenHiddenBytes(model) * gbs;
  const prefillIntermediates = gbs * (18 * s * h1 + 2 * numHeads * s ** 2 + 2 * s * h2);
  const decodeAttention = gbs * (4 * h1 + 4 * (s + n) * h1 + 2 * numHeads * (s + n));
  const kvBuffer = tokenKvBytes(model) * (s + n) * gbs;
  const decodeIntermediates = gbs * (14 * h1 + 2 * h2) + kvCache.gpu * (decodeAttention + kvBuffer);
  return {
    prefill: weightBuffers + s * hiddenBuffer + prefillIntermediates,
    decode: weightBuffers + hiddenBuffer + decodeIntermediates,
  };
}
