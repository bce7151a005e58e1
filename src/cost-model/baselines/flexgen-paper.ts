/**
 * FlexGen's cost model as published (arXiv 2303.06865, A.3): perfect overlap of five stages per layer, its memory
 * constraints.
 */
import type { ModelConfig } from '../../models/model-config.js';
import { blockSize, type Policy } from '../../policy/policy.js';
import { LINKS, type Link, type Phase, type Tier } from '../../tiers.js';
import type { Workload } from '../../workload/workload.js';
import {
  cpuWorkingBytes,
  flexGenTerms,
  homeBytes,
  layerWeightBytes,
  tokenHiddenBytes,
  type FlexGenTerms,
} from './flexgen-terms.js';

/** One rate per stage, as in the printed equations. */
export interface FlexGenPaperRates {
  readonly linkBytesPerSecond: Readonly<Record<Link, number>>;
  readonly matmulFlopsPerSecond: number;
  readonly gpuAttentionFlopsPerSecond: number;
  readonly cpuAttentionFlopsPerSecond: number;
}

/** Of one block. */
export interface FlexGenEstimate {
  readonly prefillSeconds: number;
  readonly decodeSeconds: number;
  readonly genTokensPerSecond: number;
}

/**
 * What lives on a tier for the whole phase (`home`) and what the computation of one layer needs besides (`working`).
 */
interface HomeAndWorking {
  readonly home: number;
  readonly working: number;
}

export interface FlexGenPeakBytes {
  readonly gpu: Readonly<Record<Phase, HomeAndWorking>>;
  readonly cpu: Readonly<Record<Phase, HomeAndWorking>>;
  readonly disk: number;
}

/** T = Tpre l + Tgen (n-1) l; Tpre and Tgen the slowest of the four links and the computation. */
export function estimateFlexGenPaper(
  model: ModelConfig,
  workload: Workload,
  policy: Policy,
  rates: FlexGenPaperRates,
): FlexGenEstimate {
  const terms = flexGenTerms(model, workload, policy);
  const { prefill, decode } = terms.flops;
  const prefillCompute =
    prefill.matmul / rates.matmulFlopsPerSecond + prefill.attention / rates.gpuAttentionFlopsPerSecond;
  const decodeCompute =
    decode.matmul / rates.matmulFlopsPerSecond +
    decode.gpuAttention / rates.gpuAttentionFlopsPerSecond +
    decode.cpuAttention / rates.cpuAttentionFlopsPerSecond;
  const prefillLayer = Math.max(prefillCompute, ...linkSeconds(terms, 'prefill', rates));
  const decodeLayer = Math.max(decodeCompute, ...linkSeconds(terms, 'decode', rates));
  return blockEstimate(model, workload, policy, prefillLayer, decodeLayer);
}

function linkSeconds(terms: FlexGenTerms, phase: Phase, rates: FlexGenPaperRates): number[] {
  return LINKS.map((link) => {
    const { weights, kvCache, activations } = terms.linkBytes[phase][link];
    return (weights + kvCache + activations) / rates.linkBytesPerSecond[link];
  });
}

/** Of one block from the seconds of one layer in each phase. Throughput counts all n tokens over both phases. */
export function blockEstimate(
  { numLayers }: ModelConfig,
  { genTokens }: Workload,
  policy: Policy,
  prefillLayerSeconds: number,
  decodeLayerSeconds: number,
): FlexGenEstimate {
  const prefillSeconds = prefillLayerSeconds * numLayers;
  const decodeSeconds = decodeLayerSeconds * (genTokens - 1) * numLayers;
  const genTokensPerSecond = (blockSize(policy) * genTokens) / (prefillSeconds + decodeSeconds);
  return { prefillSeconds, decodeSeconds, genTokensPerSecond };
}

/**
 * The memory constraints as printed, masks left out. The working set of decode keeps the printed factor s on the hidden
 * states (the released program has 1 there).
 */
export function flexGenPeakBytes(model: ModelConfig, workload: Workload, policy: Policy): FlexGenPeakBytes {
  const { promptTokens: s, genTokens: n } = workload;
  const home = (tier: Tier, hiddenTokens: number) => homeBytes(tier, hiddenTokens, s + n, model, policy);
  const tierBytes = (tier: Tier, working: Record<Phase, number>) => ({
    prefill: { home: home(tier, s), working: working.prefill },
    decode: { home: home(tier, 1), working: working.decode },
  });
  return {
    gpu: tierBytes('gpu', gpuWorkingBytes(model, workload, policy)),
    cpu: tierBytes('cpu', cpuWorkingBytes(model, workload, policy)),
    disk: home('disk', s),
  };
}

function gpuWorkingBytes(model: ModelConfig, workload: Workload, policy: Policy): Record<Phase, number> {
  const { hiddenSize: h1, ffnSize: h2, numHeads } = model;
  const { promptTokens: s, genTokens: n } = workload;
  const { weights, kvCache, activations } = policy.placement;
  const gbs = policy.gpuBatchSize;
  const buffers =
    2 * (1 - weights.gpu) * layerWeightBytes(model) + (1 - activations.gpu) * tokenHiddenBytes(model) * s * gbs;
  const prefillIntermediates = Math.max(
    8 * gbs * s * h1,
    kvCache.gpu * gbs * (4 * s * h1 + 2 * numHeads * s ** 2),
    4 * gbs * s * h1,
    2 * gbs * s * (h1 + h2),
  );
  const decodeIntermediates = Math.max(
    8 * gbs * h1,
    kvCache.gpu * gbs * (2 * h1 + 2 * (s + n) * h1 + 2 * numHeads * (s + n)),
    4 * gbs * h1,
    2 * gbs * (h1 + h2),
  );
  return { prefill: buffers + prefillIntermediates, decode: buffers + decodeIntermediates };
}
