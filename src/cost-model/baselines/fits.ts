/** Whether a policy fits, without the cost of estimating its time. */
import { hasGpuTier } from '../../hardware/check-profile.js';
import type { HardwareProfile } from '../../hardware/hardware-profile.js';
import type { ModelConfig } from '../../models/model-config.js';
import { blockSize, type Policy } from '../../policy/policy.js';
import { TIERS, type Tier } from '../../tiers.js';
import type { Workload } from '../../workload/workload.js';
import { evaluate, placementPoint } from '../affine.js';
import { blockSets } from '../block-sets.js';
import { peakBytes } from '../memory.js';
import { plannedShares } from '../shares.js';

/** Whether the peaks of one full block of the job's longest sequences stay within `room`, tier by tier. */
export function fitsInto(
  room: Readonly<Record<Tier, number>>,
  model: ModelConfig,
  { device }: Pick<HardwareProfile, 'device'>,
  workload: Workload,
  policy: Policy,
): boolean {
  const shares = plannedShares(model, policy, device);
  const setting = { model, shape: policy, shares, device, hasGpu: hasGpuTier({ device }) };
  const { promptTokens, genTokens, numSequences = Infinity } = workload;
  const block = { promptTokens, genTokens, numSequences: Math.min(blockSize(policy), numSequences) };
  const peaks = peakBytes(setting, blockSets(block, policy));
  const point = placementPoint(policy);
  return TIERS.every((tier) => peaks[tier].every((bytes) => evaluate(bytes, point) <= room[tier]));
}
