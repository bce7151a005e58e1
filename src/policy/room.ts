/**
 * The memory of the diagonal schedule: what the blocks of the zig-zag schedule take, shared by whoever is in a slot
 * (docs/schedule.md, "The diagonal schedule").
 */
import { remembered } from '../remembered.js';
import type { Device, Tier } from '../tiers.js';
import { reservedTokens } from '../workload/blocks.js';
import { jobSequences, type JobSequences } from '../workload/sequences.js';
import type { SequenceLength, Workload } from '../workload/workload.js';
import { blockSize, prefillChunkTokens, type Policy, type TierBytes } from './policy.js';
import type { SlotRuns } from './slots.js';

/** What sequences may take together. Each alone fits, at least in the slot that is its own in the zig-zag schedule. */
export interface Room {
  /** KV rows of a page, in each layer. */
  readonly pageRows: number;
  /** At home: KV pages (all layers of each), rows of hidden states. */
  readonly kvPages: TierBytes;
  readonly hiddenRows: TierBytes;
  /** In one staging buffer, of one GPU batch: KV rows of slots away from the device, pages of slots on disk. */
  stagedRows: number;
  stagedDiskPages: number;
  /** In one buffer, of one GPU batch: hidden states away from the device, of these on disk. */
  awayHiddenRows: number;
  diskHiddenRows: number;
  /** Most tokens of a launch. */
  launchTokens: number;
}

/** Of a slot: where it keeps things. */
export interface Slot {
  readonly kvTier: Tier;
  readonly activationTier: Tier;
  readonly cpuAttention: boolean;
}

type BatchOfPolicy = Pick<Policy, 'gpuBatchSize' | 'numGpuBatches' | 'prefillChunkTokens'>;

const MOST_PAGE_ROWS = 64;

/** Whole chunks of attention; a job of shorter sequences needs one page for each. */
export const kvPageRows = remembered(({ lengths }: JobSequences): number =>
  lengths.reduce((most, length) => Math.min(MOST_PAGE_ROWS, Math.max(most, reservedTokens(length))), 1),
);

export function kvPagesOf(rows: number, pageRows: number): number {
  return Math.ceil(rows / pageRows);
}

/** Slot by slot what the runs say. */
export function slotsOf({ kvCache, activations }: SlotRuns): Slot[] {
  const tiers = activations.flatMap(({ first, end, tier }) => new Array<Tier>(end - first).fill(tier));
  return kvCache.flatMap(({ first, end, tier, cpuAttention }) =>
    Array.from({ length: end - first }, (_, b) => ({
      kvTier: tier,
      cpuAttention,
      activationTier: tiers[first + b]!,
    })),
  );
}

/** The job's sequences one by one; without a number of them: one full block. */
export function listedLengths(policy: Pick<Policy, 'gpuBatchSize' | 'numGpuBatches'>, workload: Workload) {
  return workload.sequences ?? new Array<SequenceLength>(workload.numSequences ?? blockSize(policy)).fill(workload);
}

/** Sums over slots of a zig-zag block: a whole block, a GPU batch or a prefill chunk. */
class Sums {
  numSlots = 0;
  promptTokens = 0;
  readonly kvRows: TierBytes = { gpu: 0, cpu: 0, disk: 0 };
  readonly hiddenRows: TierBytes = { gpu: 0, cpu: 0, disk: 0 };
  stagedPromptRows = 0;
  stagedRows = 0;
  numAway = 0;
  numOnDisk = 0;

  add(slot: Slot, length: SequenceLength, deviceTier: Tier): void {
    const { kvTier, activationTier, cpuAttention } = slot;
    const { promptTokens } = length;
    const reserved = reservedTokens(length);
    this.numSlots += 1;
    this.promptTokens += promptTokens;
    this.kvRows[kvTier] += reserved;
    this.hiddenRows[activationTier] += promptTokens;
    if (activationTier !== deviceTier) this.numAway += 1;
    if (activationTier === 'disk') this.numOnDisk += 1;
    if (kvTier === deviceTier) return;
    this.stagedPromptRows += promptTokens;
    this.stagedRows += cpuAttention ? 1 : reserved;
  }

  hiddenAwayFrom(deviceTier: Tier): number {
    const { gpu, cpu, disk } = this.hiddenRows;
    return gpu + cpu + disk - this.hiddenRows[deviceTier];
  }
}

/** Of a policy whose slots are realised. */
export function diagonalRoom(policy: BatchOfPolicy, workload: Workload, slotRuns: SlotRuns, device: Device): Room {
  const deviceTier = device === 'cpu' ? 'cpu' : 'gpu';
  const room = emptyRoom(kvPageRows(jobSequences(workload)));
  const lengths = listedLengths(policy, workload);
  const slots = slotsOf(slotRuns);
  for (let first = 0; first < lengths.length; first += slots.length) {
    const end = Math.min(first + slots.length, lengths.length);
    const block = new Sums();
    for (let start = first; start < end; start += policy.gpuBatchSize) {
      const batch = new Sums();
      let chunk = new Sums();
      for (let n = start; n < Math.min(start + policy.gpuBatchSize, end); n++) {
        const length = lengths[n]!;
        const slot = slots[n - first]!;
        if (chunk.numSlots > 0 && chunk.promptTokens + length.promptTokens > prefillChunkTokens(policy)) {
          raiseForChunk(room, chunk, deviceTier);
          chunk = new Sums();
        }
        for (const sums of [block, batch, chunk]) sums.add(slot, length, deviceTier);
        raiseForOne(room, slot, length, deviceTier);
      }
      raiseForChunk(room, chunk, deviceTier);
      raiseForBatch(room, batch, prefillChunkTokens(policy));
    }
    raiseHomes(room, block);
  }
  return room;
}

function emptyRoom(pageRows: number): Room {
  return {
    pageRows,
    kvPages: { gpu: 0, cpu: 0, disk: 0 },
    hiddenRows: { gpu: 0, cpu: 0, disk: 0 },
    ...{ stagedRows: 0, stagedDiskPages: 0, awayHiddenRows: 0, diskHiddenRows: 0, launchTokens: 1 },
  };
}

/** Whole pages of what a block takes at home. */
function raiseHomes(room: Room, block: Sums): void {
  for (const tier of ['gpu', 'cpu', 'disk'] as const) {
    room.kvPages[tier] = Math.max(room.kvPages[tier], Math.floor(block.kvRows[tier] / room.pageRows));
    room.hiddenRows[tier] = Math.max(room.hiddenRows[tier], block.hiddenRows[tier]);
  }
}

function raiseForBatch(room: Room, batch: Sums, chunkTokens: number): void {
  room.stagedRows = Math.max(room.stagedRows, batch.stagedRows);
  room.stagedDiskPages = Math.max(room.stagedDiskPages, Math.floor(batch.kvRows.disk / room.pageRows));
  room.awayHiddenRows = Math.max(room.awayHiddenRows, batch.numAway);
  room.diskHiddenRows = Math.max(room.diskHiddenRows, batch.numOnDisk);
  room.launchTokens = Math.max(room.launchTokens, batch.numSlots, Math.min(batch.promptTokens, chunkTokens));
}

/** Three staging buffers, in the memory of three for decode or of two for prefill. */
function raiseForChunk(room: Room, chunk: Sums, deviceTier: Tier): void {
  room.stagedRows = Math.max(room.stagedRows, Math.floor((2 * chunk.stagedPromptRows) / 3));
  room.awayHiddenRows = Math.max(room.awayHiddenRows, chunk.hiddenAwayFrom(deviceTier));
  room.diskHiddenRows = Math.max(room.diskHiddenRows, chunk.hiddenRows.disk);
}

/** One sequence always fits: pages are whole, and of its prompt no part may be missing. */
function raiseForOne(room: Room, { kvTier, cpuAttention }: Slot, length: SequenceLength, deviceTier: Tier): void {
  const pages = kvPagesOf(reservedTokens(length), room.pageRows);
  room.kvPages[kvTier] = Math.max(room.kvPages[kvTier], pages);
  if (kvTier === deviceTier) return;
  room.stagedRows = Math.max(room.stagedRows, cpuAttention ? length.promptTokens : reservedTokens(length));
  if (kvTier === 'disk') room.stagedDiskPages = Math.max(room.stagedDiskPages, pages);
}
