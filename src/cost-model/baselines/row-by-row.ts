/**
 * Row-by-row systems: one batch at a time runs to its end, the KV cache stays with the device, and weights that do not
 * fit beside it are loaded again for every token of every batch (arXiv 2303.06865, sections 2 and 6).
 */
import { capacityBytes, hasGpuTier } from '../../hardware/check-profile.js';
import type { HardwareProfile } from '../../hardware/hardware-profile.js';
import type { ModelConfig } from '../../models/model-config.js';
import { kvRowBytes } from '../../models/tensors.js';
import { QUANT_GROUP_SIZE, UNCUT_PREFILL, type Policy, type TierFractions } from '../../policy/policy.js';
import type { Tier } from '../../tiers.js';
import type { Workload } from '../../workload/workload.js';
import { estimate } from '../estimate.js';
import type { Estimate } from '../estimate-types.js';
import { fitsInto } from './fits.js';

export interface RowByRowSystem {
  /** Tiers that may hold the weights (all on one), in the order in which they are tried. */
  readonly weightTiers: readonly Tier[];
  /** Share of the device's memory that the allocator can fill. */
  readonly deviceMemoryShare: number;
  /** Of the largest batch (a power of two) that fits, the part that runs. */
  readonly batchShare: number;
  readonly overlap: boolean;
}

export interface FittedBatch {
  readonly policy: Policy;
  readonly estimate: Estimate;
}

export function allOn(tier: Tier): TierFractions {
  return { gpu: 0, cpu: 0, disk: 0, [tier]: 1 };
}

function rowByRowPolicy(
  gpuBatchSize: number,
  weightTier: Tier,
  deviceTier: Tier,
  { overlap }: Pick<RowByRowSystem, 'overlap'>,
): Policy {
  return {
    gpuBatchSize,
    numGpuBatches: 1,
    placement: { weights: allOn(weightTier), kvCache: allOn(deviceTier), activations: allOn(deviceTier) },
    weightBits: 16,
    kvCacheBits: 16,
    quantGroupSize: QUANT_GROUP_SIZE,
    cpuAttentionFraction: 0,
    prefillChunkTokens: UNCUT_PREFILL,
    overlap,
  };
}

/**
 * On the first tier that holds the weights, the largest batch that fits. Rates are those of `hardware`, which the
 * caller has adapted to how the system uses them. Undefined when nothing fits.
 */
export function fitRowByRow(
  model: ModelConfig,
  hardware: HardwareProfile,
  workload: Workload,
  system: RowByRowSystem,
): FittedBatch | undefined {
  const hasGpu = hasGpuTier(hardware);
  const deviceTier: Tier = hasGpu ? 'gpu' : 'cpu';
  const capacity = capacityBytes(hardware);
  const room = { ...capacity, [deviceTier]: capacity[deviceTier] * system.deviceMemoryShare };
  const sequenceKvBytes =
    kvRowBytes(model, 16) * model.numLayers * (workload.promptTokens + Math.max(1, workload.genTokens) - 1);
  const mostSequences = Math.min(workload.numSequences ?? Infinity, room[deviceTier] / sequenceKvBytes);
  if (mostSequences < 1) return undefined;
  const largestBatch = 2 ** Math.floor(Math.log2(mostSequences));
  for (const tier of system.weightTiers) {
    if (tier === 'gpu' && !hasGpu) continue;
    const policyOf = (batch: number) => rowByRowPolicy(batch, tier, deviceTier, system);
    for (let batch = largestBatch; batch >= 1; batch /= 2) {
      if (!fitsInto(room, model, hardware, workload, policyOf(batch))) continue;
      const policy = policyOf(Math.max(1, Math.floor(batch * system.batchShare)));
      return { policy, estimate: estimate(model, hardware, workload, policy) };
    }
  }
  return undefined;
}

/** The machine as a system sees it whose weights cross to the GPU at another rate than the profile's. */
export function withWeightRate(
  hardware: HardwareProfile,
  rateOf: (pinned: number, pageable: number | undefined) => number,
): HardwareProfile {
  const { cpuToGpu } = hardware.links;
  if (!cpuToGpu) return hardware;
  const value = rateOf(cpuToGpu.bytesPerSecond.value, cpuToGpu.kvCacheBytesPerSecond?.value);
  const slower = { ...cpuToGpu, bytesPerSecond: { value, source: 'set' as const } };
  return { ...hardware, links: { ...hardware.links, cpuToGpu: slower } };
}
