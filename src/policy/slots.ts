/** Which slots of a block keep their KV cache and activations on which tier, and where they attend: whole sequences. */
import type { Device, Tier } from '../tiers.js';
import { blockSize, type Policy, type TierFractions } from './policy.js';

/** Slots `first <= b < end` of a block. Slot b belongs to GPU batch floor(b / gpuBatchSize). */
interface SlotRun {
  readonly first: number;
  readonly end: number;
  readonly tier: Tier;
}

export interface KvSlotRun extends SlotRun {
  /** Decode attention on the CPU although the device is a GPU. */
  readonly cpuAttention: boolean;
}

/** The slots of a block from 0 to blockSize, each class in runs of slots alike. */
export interface SlotRuns {
  readonly kvCache: readonly KvSlotRun[];
  readonly activations: readonly SlotRun[];
}

/** The rules are in docs/schedule.md: "Whole sequences". */
export function realiseSlots(policy: Policy, device: Device): SlotRuns {
  const { kvCache, activations } = policy.placement;
  const beside = device !== 'cpu';
  const attended = {
    gpu: () => 0,
    cpu: runningShare(beside ? policy.cpuAttentionFraction : 0),
    disk: runningShare(beside ? (policy.diskKvCpuAttentionFraction ?? 0) : 0),
  };
  return {
    kvCache: joined(
      tierRuns(kvCache, policy).flatMap(({ first, end, tier }) => {
        const border = first + attended[tier](end - first);
        return [
          { first, end: border, tier, cpuAttention: true },
          { first: border, end, tier, cpuAttention: false },
        ];
      }),
      (a, b) => a.tier === b.tier && a.cpuAttention === b.cpuAttention,
    ),
    activations: joined(tierRuns(activations, policy), (a, b) => a.tier === b.tier),
  };
}

/**
 * Of a running sequence of items, how many of the next `count` belong to the share: never negative, never off by one in
 * the sum.
 */
function runningShare(share: number): (count: number) => number {
  let seen = 0;
  return (count) => {
    const taken = Math.round(share * (seen + count)) - Math.round(share * seen);
    seen += count;
    return taken;
  };
}

/** Batch after batch: gpu slots first, then cpu, then disk. */
function tierRuns({ gpu, cpu, disk }: TierFractions, policy: Policy): SlotRun[] {
  const onGpu = runningShare(gpu);
  const onCpu = runningShare(cpu + disk > 0 ? cpu / (cpu + disk) : 0);
  const runs: SlotRun[] = [];
  for (let first = 0; first < blockSize(policy); first += policy.gpuBatchSize) {
    const end = first + policy.gpuBatchSize;
    const gpuEnd = first + onGpu(policy.gpuBatchSize);
    const cpuEnd = gpuEnd + onCpu(end - gpuEnd);
    runs.push({ first, end: gpuEnd, tier: 'gpu' }, { first: gpuEnd, end: cpuEnd, tier: 'cpu' });
    runs.push({ first: cpuEnd, end, tier: 'disk' });
  }
  return runs;
}

/** Without the empty ones, and neighbours alike as one. */
function joined<Run extends SlotRun>(runs: readonly Run[], areAlike: (a: Run, b: Run) => boolean): Run[] {
  const kept: Run[] = [];
  for (const run of runs) {
    const last = kept[kept.length - 1];
    if (run.first === run.end) continue;
    if (last && areAlike(last, run)) kept[kept.length - 1] = { ...last, end: run.end };
    else kept.push(run);
  }
  return kept;
}
