/** Policies that take the cost model's terms apart: each makes another stage the one that decides. */
import { estimate } from '../cost-model/estimate.js';
import { hasGpuTier } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import { QUANT_GROUP_SIZE, type Placement, type Policy, type TierFractions } from '../policy/policy.js';
import { TIERS } from '../tiers.js';
import type { Workload } from '../workload/workload.js';

export interface NamedPolicy {
  readonly name: string;
  readonly policy: Policy;
}

type Variation = Partial<Omit<Policy, 'placement'>> & { readonly placement?: Partial<Placement> };

const GPU: TierFractions = { gpu: 1, cpu: 0, disk: 0 };
const RAM: TierFractions = { gpu: 0, cpu: 1, disk: 0 };
const DISK: TierFractions = { gpu: 0, cpu: 0, disk: 1 };
const HALF_ON_DISK: TierFractions = { gpu: 0, cpu: 0.5, disk: 0.5 };
const ALL_IN_RAM: Placement = { weights: RAM, kvCache: RAM, activations: RAM };

/** Away from everything on the device; the first ones say most. */
const WITH_GPU: Readonly<Record<string, Variation>> = {
  'all-on-gpu': {},
  'weights-in-ram': { placement: { weights: RAM } },
  'kv-moved': { placement: { kvCache: RAM } },
  'kv-attended-by-cpu': { placement: { kvCache: RAM }, cpuAttentionFraction: 1 },
  'weights-on-disk': { placement: { weights: DISK } },
  'all-in-ram': { placement: ALL_IN_RAM, cpuAttentionFraction: 0.5 },
  'one-after-the-other': { placement: ALL_IN_RAM, overlap: false },
  'four-bit': { placement: { weights: RAM, kvCache: RAM }, weightBits: 4, kvCacheBits: 4 },
  'kv-on-disk': { placement: { kvCache: DISK } },
};
const WITHOUT_GPU: Readonly<Record<string, Variation>> = {
  'all-in-ram': {},
  'weights-on-disk': { placement: { weights: DISK } },
  'weights-half-on-disk': { placement: { weights: HALF_ON_DISK } },
  'kv-on-disk': { placement: { kvCache: DISK } },
  'four-bit': { weightBits: 4, kvCacheBits: 4 },
  'one-after-the-other': { placement: { weights: DISK }, overlap: false },
  'all-on-disk': { placement: { weights: DISK, kvCache: DISK, activations: DISK } },
};

/** Batches of a block: enough for the tasks of neighbours to overlap. */
const NUM_GPU_BATCHES = 4;

/** At most `count`: the planned policy, then of the others those that fit. */
export function validationPolicies(
  model: ModelConfig,
  hardware: HardwareProfile,
  workload: Workload,
  planned: Policy,
  count: number,
): NamedPolicy[] {
  const device = hasGpuTier(hardware) ? GPU : RAM;
  const base: Policy = {
    gpuBatchSize: Math.ceil((workload.numSequences ?? 1) / NUM_GPU_BATCHES),
    numGpuBatches: NUM_GPU_BATCHES,
    placement: { weights: device, kvCache: device, activations: device },
    weightBits: 16,
    kvCacheBits: 16,
    quantGroupSize: QUANT_GROUP_SIZE,
    cpuAttentionFraction: 0,
    overlap: true,
  };
  const variations = Object.entries(hasGpuTier(hardware) ? WITH_GPU : WITHOUT_GPU).map(([name, variation]) => ({
    name,
    policy: { ...base, ...variation, placement: { ...base.placement, ...variation.placement } },
  }));
  const fits = ({ policy }: NamedPolicy) => {
    const fit = estimate(model, hardware, workload, policy, { realised: true }).fits;
    return TIERS.every((tier) => fit[tier]);
  };
  return [{ name: 'planned', policy: planned }, ...variations.filter(fits)].slice(0, count);
}
