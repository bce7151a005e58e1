/**
 * The terms of FlexGen's cost model (arXiv 2303.06865, sections 4.3 and A.3): bytes and FLOPs of one decoder layer for
 * one block, 16-bit OPT. The published and the released variant share them and differ in how they turn them into
 * seconds.
 *
 * The paper's letters: s promptTokens, n genTokens, h1 hiddenSize, h2 ffnSize, nh numHeads, l numLayers, bls block
 * size, gbs GPU batch size; wg wc wd, cg cc cd, hg hc hd the placement of weights, KV cache and hidden states.
 */
import type { ModelConfig } from '../../models/model-config.js';
import { blockSize, type Policy, type TensorClass } from '../../policy/policy.js';
import type { Link, Phase, Tier } from '../../tiers.js';
import type { Workload } from '../../workload/workload.js';

type ClassBytes = Readonly<Record<TensorClass, number>>;

export interface FlexGenTerms {
  /** Bytes of one layer that cross each link. */
  readonly linkBytes: Readonly<Record<Phase, Readonly<Record<Link, ClassBytes>>>>;
  /** FLOPs of one layer. `cpuAttention` is what the model always gives to the CPU: all KV cache outside the GPU. */
  readonly flops: {
    readonly prefill: { readonly matmul: number; readonly attention: number };
    readonly decode: { readonly matmul: number; readonly gpuAttention: number; readonly cpuAttention: number };
  };
}

/** W = 8 h1^2 + 4 h1 h2: weight bytes of one layer. */
export function layerWeightBytes({ hiddenSize, ffnSize }: ModelConfig): number {
  return 8 * hiddenSize ** 2 + 4 * hiddenSize * ffnSize;
}

/** 4 h1: KV bytes of one token in one layer. */
export function tokenKvBytes({ hiddenSize }: ModelConfig): number {
  return 4 * hiddenSize;
}

/** 2 h1: bytes of one token's hidden state. */
export function tokenHiddenBytes({ hiddenSize }: ModelConfig): number {
  return 2 * hiddenSize;
}

const classBytes = (weights: number, kvCache: number, activations: number): ClassBytes => ({
  weights,
  kvCache,
  activations,
});

export function flexGenTerms(model: ModelConfig, workload: Workload, policy: Policy): FlexGenTerms {
  return {
    linkBytes: { prefill: prefillBytes(model, workload, policy), decode: decodeBytes(model, workload, policy) },
    flops: { prefill: prefillFlops(model, workload, policy), decode: decodeFlops(model, workload, policy) },
  };
}

function prefillBytes(model: ModelConfig, { promptTokens }: Workload, policy: Policy): Record<Link, ClassBytes> {
  const { weights, kvCache, activations } = policy.placement;
  const layerBytes = layerWeightBytes(model);
  const kvBytes = tokenKvBytes(model) * (promptTokens + 1) * blockSize(policy);
  const hiddenBytes = tokenHiddenBytes(model) * promptTokens * blockSize(policy);
  const hiddenOffGpu = (activations.cpu + activations.disk) * hiddenBytes;
  return {
    cpuToGpu: classBytes((weights.cpu + weights.disk) * layerBytes, 0, hiddenOffGpu),
    gpuToCpu: classBytes(0, (kvCache.cpu + kvCache.disk) * kvBytes, hiddenOffGpu),
    diskToCpu: classBytes(weights.disk * layerBytes, 0, activations.disk * hiddenBytes),
    cpuToDisk: classBytes(0, kvCache.disk * kvBytes, activations.disk * hiddenBytes),
  };
}

/** Of one decode step, at the KV length s + n/2 that stands for all of them. */
function decodeBytes(model: ModelConfig, workload: Workload, policy: Policy): Record<Link, ClassBytes> {
  const { weights, kvCache, activations } = policy.placement;
  const layerBytes = layerWeightBytes(model);
  const newKvBytes = tokenKvBytes(model) * blockSize(policy);
  const pastKvBytes = newKvBytes * meanKvTokens(workload);
  const hiddenBytes = tokenHiddenBytes(model) * blockSize(policy);
  const hiddenOffGpu = (activations.cpu + activations.disk) * hiddenBytes;
  return {
    cpuToGpu: classBytes((weights.cpu + weights.disk) * layerBytes, 0, hiddenOffGpu),
    gpuToCpu: classBytes(0, 0, hiddenOffGpu),
    diskToCpu: classBytes(weights.disk * layerBytes, kvCache.disk * pastKvBytes, activations.disk * hiddenBytes),
    cpuToDisk: classBytes(0, kvCache.disk * newKvBytes, activations.disk * hiddenBytes),
  };
}

function meanKvTokens({ promptTokens, genTokens }: Workload): number {
  return promptTokens + genTokens / 2;
}

function prefillFlops(model: ModelConfig, { promptTokens }: Workload, policy: Policy) {
  const sequences = blockSize(policy);
  return {
    matmul: sequences * promptTokens * layerWeightBytes(model),
    attention: 4 * sequences * promptTokens ** 2 * model.hiddenSize,
  };
}

function decodeFlops(model: ModelConfig, workload: Workload, policy: Policy) {
  const { kvCache } = policy.placement;
  const sequences = blockSize(policy);
  const attention = 4 * sequences * meanKvTokens(workload) * model.hiddenSize;
  return {
    matmul: sequences * layerWeightBytes(model),
    gpuAttention: kvCache.gpu * attention,
    cpuAttention: (kvCache.cpu + kvCache.disk) * attention,
  };
}

/** Bytes that live on a tier: weights, hidden states of `hiddenTokens` and KV cache of `kvTokens` tokens a sequence. */
export function homeBytes(
  tier: Tier,
  hiddenTokens: number,
  kvTokens: number,
  model: ModelConfig,
  policy: Policy,
): number {
  const { weights, kvCache, activations } = policy.placement;
  const sequences = blockSize(policy);
  return (
    weights[tier] * layerWeightBytes(model) * model.numLayers +
    activations[tier] * tokenHiddenBytes(model) * hiddenTokens * sequences +
    kvCache[tier] * tokenKvBytes(model) * kvTokens * sequences * model.numLayers
  );
}

/** What the CPU needs besides, while one layer is computed: both variants agree. */
export function cpuWorkingBytes(model: ModelConfig, workload: Workload, policy: Policy): Record<Phase, number> {
  const { promptTokens: s, genTokens: n } = workload;
  const { weights, kvCache, activations } = policy.placement;
  const gbs = policy.gpuBatchSize;
  const layerBytes = layerWeightBytes(model);
  const hidden = tokenHiddenBytes(model) * gbs;
  const kvBuffers = 2 * kvCache.disk * tokenKvBytes(model) * (s + n) * gbs;
  const attentionScores = 2 * model.numHeads * (s + n) * gbs;
  return {
    prefill: (1 - weights.gpu) * layerBytes + (1 - activations.gpu) * hidden * s,
    decode: weights.disk * layerBytes + 2 * activations.disk * hidden + kvBuffers + attentionScores + hidden,
  };
}
