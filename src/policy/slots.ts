/** Which tier each slot of a block keeps its KV cache and activations on, and where it attends: whole sequences. */
import type { Device, Tier } from '../tiers.js';
import type { Policy, TierFractions } from './policy.js';
import type { SlotPlacement } from './realisation.js';

/** All slots of a block, length blockSize. Slot b belongs to GPU batch floor(b / gpuBatchSize). */
export function realiseSlots(policy: Policy, device: Device): SlotPlacement[] {
  const { gpuBatchSize, numGpuBatches, placement } = policy;
  const kvTiers = slotTiers(placement.kvCache, gpuBatchSize, numGpuBatches);
  const activationTiers = slotTiers(placement.activations, gpuBatchSize, numGpuBatches);
  const cpuAttention = attendedSlots(kvTiers, policy, device);
  return kvTiers.map((kvTier, slot) => ({
    kvTier,
    activationTier: activationTiers[slot]!,
    cpuAttention: cpuAttention[slot]!,
  }));
}

/** Of a running sequence of items, how many of the next `count` belong to the share: never negative, never off by one in the sum. */
function runningShare(share: number): (count: number) => number {
  let seen = 0;
  return (count) => {
    const taken = Math.round(share * (seen + count)) - Math.round(share * seen);
    seen += count;
    return taken;
  };
}

function slotTiers({ gpu, cpu, disk }: TierFractions, gpuBatchSize: number, numGpuBatches: number): Tier[] {
  const onGpu = runningShare(gpu);
  const onCpu = runningShare(cpu + disk > 0 ? cpu / (cpu + disk) : 0);
  const tiers = new Array<Tier>(gpuBatchSize * numGpuBatches).fill('disk');
  for (let start = 0; start < tiers.length; start += gpuBatchSize) {
    const gpuEnd = start + onGpu(gpuBatchSize);
    const cpuEnd = gpuEnd + onCpu(start + gpuBatchSize - gpuEnd);
    tiers.fill('gpu', start, gpuEnd).fill('cpu', gpuEnd, cpuEnd);
  }
  return tiers;
}

/** In each batch the first slots of the attended share of its cpu (disk) slots. A device that is the CPU has no attention beside it. */
function attendedSlots(kvTiers: readonly Tier[], policy: Policy, device: Device): boolean[] {
  const attended = new Array<boolean>(kvTiers.length).fill(false);
  if (device === 'cpu') return attended;
  const shares = { cpu: policy.cpuAttentionFraction, disk: policy.diskKvCpuAttentionFraction ?? 0 };
  for (const tier of ['cpu', 'disk'] as const) {
    const share = runningShare(shares[tier]);
    for (let start = 0; start < kvTiers.length; start += policy.gpuBatchSize) {
      const end = start + policy.gpuBatchSize;
      let first = start;
      while (first < end && kvTiers[first] !== tier) first++;
      let last = first;
      while (last < end && kvTiers[last] === tier) last++;
      attended.fill(true, first, first + share(last - first));
    }
  }
  return attended;
}
