/**
 * The policy that FlexGen's own cost model would choose on this machine, and our estimate of it.
 */
import { capacityBytes, hasGpuTier } from '../../hardware/check-profile.js';
import type { ComputeRates, HardwareProfile } from '../../hardware/hardware-profile.js';
import type { ModelConfig } from '../../models/model-config.js';
import { layerTensors, rowBytes } from '../../models/tensors.js';
import { blockSize, QUANT_GROUP_SIZE, type Policy } from '../../policy/policy.js';
import { TIERS, type Tier } from '../../tiers.js';
import type { Workload } from '../../workload/workload.js';
import { secondsPerElement } from '../launch-seconds.js';
import { estimate } from '../estimate.js';
import type { Baseline, BaselineFinder } from './baseline.js';
import {
  estimateFlexGenReleased,
  RELEASED_T4_RATES,
  releasedPeakBytes,
  type FlexGenReleasedRates,
} from './flexgen-released.js';
import { fitsInto } from './fits.js';
import { allOn } from './row-by-row.js';

/**
 * Shares of every capacity that it may fill, by its account of memory. Its authors ran with all of it or 80 %, and
 * adjusted by hand what then did not fit; here less is tried until our account, which is stricter, agrees.
 */
const RELAXATIONS = [1, 0.8, 0.6];
/** Of its best policies at one relaxation, how many are tried. */
const MOST_TRIES = 4;
const GPU_BATCH_SIZES = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/** Fewer than 20 (section 4.3). */
const NUMS_OF_GPU_BATCHES = [1, 2, 4, 8, 12, 16, 19];
const TYPICAL_DECODE_BATCH = 64;

export const flexGen: BaselineFinder = (model, hardware, workload): Baseline | undefined => {
  const { gpu } = hardware.compute;
  if (!hasGpuTier(hardware) || !gpu) return undefined;
  const seen = asOpt(model);
  const rates = ratesOf(hardware, gpu);
  const capacity = capacityBytes(hardware);
  for (const relaxation of RELAXATIONS) {
    const room = scaledRoom(capacity, relaxation);
    const policy = candidates(seen, room, workload)
      .map((candidate) => ({ candidate, speed: tokensPerSecond(seen, workload, candidate, rates) }))
      .sort((a, b) => b.speed - a.speed || b.candidate.gpuBatchSize - a.candidate.gpuBatchSize)
      .slice(0, MOST_TRIES)
      .map(({ candidate }) => candidate)
      .find((candidate) => fitsInto(capacity, model, hardware, workload, candidate));
    if (policy) return { system: 'FlexGen', policy, estimate: estimate(model, hardware, workload, policy) };
  }
  return undefined;
};

/**
 * Rounded, for batch shapes that are alike to its model (all on the GPU, say) must tie: then the larger GPU batch wins.
 */
function tokensPerSecond(model: ModelConfig, workload: Workload, policy: Policy, rates: FlexGenReleasedRates): number {
  return Number(estimateFlexGenReleased(model, workload, policy, rates).genTokensPerSecond.toPrecision(9));
}

function scaledRoom(capacity: Readonly<Record<Tier, number>>, share: number): Record<Tier, number> {
  return { gpu: share * capacity.gpu, cpu: share * capacity.cpu, disk: share * capacity.disk };
}

/** It knows OPT alone; another model is shown to it as the OPT of the same width with as many weights in a layer. */
function asOpt(model: ModelConfig): ModelConfig {
  const layerBytes = layerTensors(model, 'decoder')
    .filter(({ kind }) => kind === 'matrix')
    .reduce((sum, tensor) => sum + tensor.rows * rowBytes(model, tensor, 16), 0);
  const { hiddenSize } = model;
  return { ...model, ffnSize: Math.max(1, (layerBytes - 8 * hiddenSize ** 2) / (4 * hiddenSize)) };
}

/** The profile's rates under its names; it counts attention over all pairs of tokens, we over the causal half. */
function ratesOf({ links, compute }: HardwareProfile, gpu: ComputeRates): FlexGenReleasedRates {
  const cpuToGpu = links.cpuToGpu!.bytesPerSecond.value;
  const gpuToCpu = links.gpuToCpu!;
  const diskWrites = links.cpuToDisk.bytesPerSecond.value;
  return {
    cpuToGpuBytesPerSecond: cpuToGpu,
    gpuToCpuKvBytesPerSecond: (gpuToCpu.kvCacheBytesPerSecond ?? gpuToCpu.bytesPerSecond).value,
    gpuToCpuHiddenBytesPerSecond: gpuToCpu.bytesPerSecond.value,
    diskToCpuBytesPerSecond: links.diskToCpu.bytesPerSecond.value,
    cpuToDiskPrefillKvBytesPerSecond: diskWrites,
    cpuToDiskPrefillHiddenBytesPerSecond: diskWrites,
    cpuToDiskDecodeBytesPerSecond: diskWrites,
    prefillMatmulFlopsPerSecond: gpu.matmul[gpu.matmul.length - 1]!.flopsPerSecond.value,
    decodeMatmulFlopsPerSecond: (2 * TYPICAL_DECODE_BATCH) / secondsPerElement(gpu.matmul, TYPICAL_DECODE_BATCH),
    prefillAttentionFlopsPerSecond: 2 * gpu.attentionPrefillFlopsPerSecond.value,
    decodeGpuAttentionFlopsPerSecond: gpu.attentionDecodeBytesPerSecond.value,
    cpuAttentionFlopsPerSecond: compute.cpu.attentionDecodeBytesPerSecond.value,
    cpuLoss: RELEASED_T4_RATES.cpuLoss,
  };
}

function candidates(model: ModelConfig, room: Readonly<Record<Tier, number>>, workload: Workload): Policy[] {
  const mostSequences = workload.numSequences ?? Infinity;
  const shapes = GPU_BATCH_SIZES.flatMap((gpuBatchSize) =>
    NUMS_OF_GPU_BATCHES.map((numGpuBatches) => ({ gpuBatchSize, numGpuBatches })),
  ).filter((shape) => blockSize(shape) <= mostSequences);
  return shapes
    .flatMap(({ gpuBatchSize, numGpuBatches }) =>
      TIERS.map((kvTier) => fastestWeights(model, workload, shapeWith(gpuBatchSize, numGpuBatches, kvTier), room)),
    )
    .filter((policy) => policy !== undefined);
}

/** Hidden states never go to disk; all KV cache outside the GPU is attended by the CPU. */
function shapeWith(gpuBatchSize: number, numGpuBatches: number, kvTier: Tier): Policy {
  return {
    gpuBatchSize,
    numGpuBatches,
    placement: {
      weights: allOn('disk'),
      kvCache: allOn(kvTier),
      activations: allOn(kvTier === 'gpu' ? 'gpu' : 'cpu'),
    },
    weightBits: 16,
    kvCacheBits: 16,
    quantGroupSize: QUANT_GROUP_SIZE,
    cpuAttentionFraction: 1,
    diskKvCpuAttentionFraction: 1,
    overlap: true,
  };
}

/** As many weights on the GPU as fit, then on the CPU, the rest on disk. Undefined when that does not hold them. */
function fastestWeights(
  model: ModelConfig,
  workload: Workload,
  policy: Policy,
  room: Readonly<Record<Tier, number>>,
): Policy | undefined {
  const withWeights = (gpu: number, cpu: number): Policy => ({
    ...policy,
    placement: { ...policy.placement, weights: { gpu, cpu, disk: Math.max(0, 1 - gpu - cpu) } },
  });
  const peak = (tier: Tier, at: Policy) => Math.max(...releasedPeakBytes(model, workload, at)[tier]);
  const gpu = largestShare(1, room.gpu, (share) => peak('gpu', withWeights(share, 0)));
  const cpu = largestShare(1 - gpu, room.cpu, (share) => peak('cpu', withWeights(gpu, share)));
  const placed = withWeights(gpu, cpu);
  return TIERS.every((tier) => peak(tier, placed) <= room[tier] * (1 + 1e-9)) ? placed : undefined;
}

/** A peak is the largest of affine functions of the share, so the chord from 0 to 1 lies above it: never too much. */
function largestShare(most: number, room: number, peakAt: (share: number) => number): number {
  const atZero = peakAt(0);
  const slope = peakAt(1) - atZero;
  return slope <= 0 ? most : Math.min(most, Math.max(0, (room - atZero) / slope));
}
