/**
 * Who is in which slot in which step of the diagonal schedule, should everybody run to their `genTokens`:
 * docs/schedule.md, "The diagonal schedule".
 */
import { kvPagesOf, type Room, type Slot } from '../policy/room.js';
import type { TierBytes } from '../policy/policy.js';
import { TIERS, type Tier } from '../tiers.js';
import type { SequenceLength } from '../workload/workload.js';

/** A sequence is in its slot in the steps `firstStep <= i <= lastStep`, in the first with its prompt. */
export interface Visit {
  readonly slot: number;
  readonly length: SequenceLength;
  readonly firstStep: number;
  readonly lastStep: number;
}

export interface DiagonalSteps {
  readonly numSteps: number;
  /** In the order in which they enter: that of the job. */
  readonly visits: readonly Visit[];
}

/** The block that is simulated. */
export interface DiagonalBlock {
  readonly slots: readonly Slot[];
  readonly gpuBatchSize: number;
  readonly room: Room;
  readonly deviceTier: Tier;
}

/** Walks through the steps of a job. */
export function diagonalSteps(block: DiagonalBlock, lengths: readonly SequenceLength[]): DiagonalSteps {
  const occupancy = new Occupancy(block);
  const visits: Visit[] = [];
  const numBatches = Math.ceil(block.slots.length / block.gpuBatchSize);
  for (let step = 0; ; step++) {
    occupancy.prepare(step);
    for (let k = 0; k < numBatches; k++) {
      occupancy.leave(k);
      while (visits.length < lengths.length) {
        const entered = occupancy.enter(k, lengths[visits.length]!);
        if (!entered) break;
        visits.push(entered);
      }
    }
    if (occupancy.isEmpty && visits.length === lengths.length) return { numSteps: step, visits };
  }
}

/** Tokens of one GPU batch in the step that is prepared, by where the hidden states are. */
interface BatchTokens {
  readonly tokens: TierBytes;
  numEntered: number;
}

/** Visits that share pages or rows, those that last longest first. */
class Sharing {
  readonly #visits: Visit[] = [];
  readonly #counts: Int32Array;

  constructor(private readonly pageRows: number) {
    this.#counts = new Int32Array(pageRows);
  }

  add(visit: Visit): void {
    let at = this.#visits.length;
    while (at > 0 && this.#visits[at - 1]!.lastStep < visit.lastStep) at--;
    this.#visits.splice(at, 0, visit);
  }

  remove(visit: Visit): void {
    this.#visits.splice(this.#visits.indexOf(visit), 1);
  }

  /**
   * Whether there are enough for these and one more, in every step from `step` on. There is most demand in somebody's
   * last step.
   */
  suffice(most: number, step: number, more?: Visit): boolean {
    const counts = this.#counts.fill(0);
    const visits = this.#visits;
    let pages = 0;
    let n = 0;
    let isMoreIn = more === undefined;
    while (n < visits.length || !isMoreIn) {
      const isMoreNext = !isMoreIn && (n === visits.length || more!.lastStep >= visits[n]!.lastStep);
      const visit = isMoreNext ? more! : visits[n++]!;
      isMoreIn ||= isMoreNext;
      if (visit.lastStep < step) break;
      const rows = visit.length.promptTokens + step - visit.firstStep;
      pages += kvPagesOf(rows, this.pageRows);
      counts[(rows - 1) % this.pageRows]! += 1;
      if (pages + newPages(counts, visit.lastStep - step) > most) return false;
    }
    return true;
  }
}

/** Pages that fill up within so many steps, given how many rows the last page of each sequence has beyond the first. */
function newPages(counts: Int32Array, steps: number): number {
  const pageRows = counts.length;
  let pages = 0;
  for (let r = 0; r < pageRows; r++) if (counts[r] !== 0) pages += counts[r]! * Math.floor((r + steps) / pageRows);
  return pages;
}

class Occupancy {
  #step = 0;
  #numLive = 0;
  readonly #visits: (Visit | undefined)[];
  readonly #batches: BatchTokens[];
  /** At home, by tier; of each GPU batch: pages on disk, rows that are moved. */
  readonly #home: Readonly<Record<Tier, Sharing>>;
  readonly #disk: readonly Sharing[];
  readonly #moved: readonly Sharing[];

  constructor(private readonly block: DiagonalBlock) {
    const { pageRows } = block.room;
    const numBatches = Math.ceil(block.slots.length / block.gpuBatchSize);
    const perBatch = (rows: number) => Array.from({ length: numBatches }, () => new Sharing(rows));
    this.#visits = new Array<Visit | undefined>(block.slots.length).fill(undefined);
    this.#batches = Array.from({ length: numBatches }, () => ({ tokens: { gpu: 0, cpu: 0, disk: 0 }, numEntered: 0 }));
    this.#home = { gpu: new Sharing(pageRows), cpu: new Sharing(pageRows), disk: new Sharing(pageRows) };
    this.#disk = perBatch(pageRows);
    this.#moved = perBatch(1);
  }

  get isEmpty(): boolean {
    return this.#numLive === 0;
  }

  prepare(step: number): void {
    this.#step = step;
    for (const batch of this.#batches) {
      for (const tier of TIERS) batch.tokens[tier] = 0;
      batch.numEntered = 0;
    }
    this.#visits.forEach((visit, b) => {
      if (visit) this.#batchOf(b).tokens[this.block.slots[b]!.activationTier] += 1;
    });
  }

  /** Those of a GPU batch who were in their last step. */
  leave(batch: number): void {
    this.#slotsOf(batch, (b) => {
      const visit = this.#visits[b];
      if (!visit || visit.lastStep >= this.#step) return;
      this.#visits[b] = undefined;
      this.#numLive -= 1;
      this.#batchOf(b).tokens[this.block.slots[b]!.activationTier] -= 1;
      for (const sharing of this.#sharingsOf(b)) sharing.remove(visit);
    });
  }

  /** The next sequence takes the first free slot of the batch that has room for it. */
  enter(batch: number, length: SequenceLength): Visit | undefined {
    let entered: Visit | undefined;
    let refused: Slot | undefined;
    this.#slotsOf(batch, (b) => {
      const slot = this.block.slots[b]!;
      if (entered || this.#visits[b] || (refused && areAlike(slot, refused))) return;
      const visit = {
        slot: b,
        length,
        firstStep: this.#step,
        lastStep: this.#step + Math.max(length.genTokens, 1) - 1,
      };
      if (this.#hasRoomForHiddenStates(b, length.promptTokens) && this.#hasRoomForKvCache(visit)) entered = visit;
      else refused = slot;
    });
    if (entered) this.#take(entered);
    return entered;
  }

  #take(visit: Visit): void {
    const { slot, length } = visit;
    this.#visits[slot] = visit;
    this.#numLive += 1;
    const batch = this.#batchOf(slot);
    batch.tokens[this.block.slots[slot]!.activationTier] += length.promptTokens;
    batch.numEntered += 1;
    for (const sharing of this.#sharingsOf(slot)) sharing.add(visit);
  }

  #hasRoomForHiddenStates(b: number, promptTokens: number): boolean {
    const { room, slots, deviceTier } = this.block;
    const { tokens, numEntered } = this.#batchOf(b);
    const tier = slots[b]!.activationTier;
    const total = tokens.gpu + tokens.cpu + tokens.disk + promptTokens;
    const atHome = this.#batches.reduce((sum, batch) => sum + batch.tokens[tier], promptTokens);
    return (
      (numEntered === 0 || total <= room.launchTokens) &&
      atHome <= room.hiddenRows[tier] &&
      (tier !== 'disk' || tokens.disk + promptTokens <= room.diskHiddenRows) &&
      (tier === deviceTier || total - tokens[deviceTier] <= room.awayHiddenRows)
    );
  }

  #hasRoomForKvCache(visit: Visit): boolean {
    const { room, slots, deviceTier } = this.block;
    const { kvTier, cpuAttention } = slots[visit.slot]!;
    const batch = Math.floor(visit.slot / this.block.gpuBatchSize);
    if (!this.#home[kvTier].suffice(room.kvPages[kvTier], this.#step, visit)) return false;
    if (kvTier === 'disk' && !this.#disk[batch]!.suffice(room.stagedDiskPages, this.#step, visit)) return false;
    if (kvTier === deviceTier || deviceTier === 'cpu') return true;
    const attended = this.#attendedRows(batch) + (cpuAttention ? visit.length.promptTokens : 0);
    const rest = room.stagedRows - attended;
    return rest >= 0 && this.#moved[batch]!.suffice(rest, this.#step, cpuAttention ? undefined : visit);
  }

  /** Of slots that the CPU attends to one row passes through the device, or their prompt. */
  #attendedRows(batch: number): number {
    let rows = 0;
    this.#slotsOf(batch, (b) => {
      const visit = this.#visits[b];
      if (visit && this.block.slots[b]!.cpuAttention)
        rows += visit.firstStep === this.#step ? visit.length.promptTokens : 1;
    });
    return rows;
  }

  #sharingsOf(b: number): Sharing[] {
    const { kvTier, cpuAttention } = this.block.slots[b]!;
    const batch = Math.floor(b / this.block.gpuBatchSize);
    const isMoved = kvTier !== this.block.deviceTier && !cpuAttention;
    return [
      this.#home[kvTier],
      ...(kvTier === 'disk' ? [this.#disk[batch]!] : []),
      ...(isMoved ? [this.#moved[batch]!] : []),
    ];
  }

  #batchOf(b: number): BatchTokens {
    return this.#batches[Math.floor(b / this.block.gpuBatchSize)]!;
  }

  #slotsOf(batch: number, use: (b: number) => void): void {
    const first = batch * this.block.gpuBatchSize;
    for (let b = first; b < Math.min(first + this.block.gpuBatchSize, this.block.slots.length); b++) use(b);
  }
}

function areAlike(a: Slot, b: Slot): boolean {
  return a.kvTier === b.kvTier && a.cpuAttention === b.cpuAttention && a.activationTier === b.activationTier;
}
