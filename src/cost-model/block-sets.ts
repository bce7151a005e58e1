/** A job's sequences as blocks and GPU batches, each a stretch of the job: what it sums up to is known without walking over it. */
import { rememberedFor } from '../remembered.js';
import { jobBlocks, type BlockGroup } from '../workload/blocks.js';
import { jobSequences, type Amount, type JobSequences } from '../workload/sequences.js';
import type { Workload } from '../workload/workload.js';
import type { BatchShape } from './cost-terms.js';

/** Sequences `first <= n < end` of the job. */
export interface Stretch {
  readonly first: number;
  readonly end: number;
}

/** `count` GPU batches alike; `parts`, in order, are not empty. */
interface Batch {
  count: number;
  readonly parts: readonly Stretch[];
}

/** Slots `first <= b < end` of a block. */
type SlotRange = Stretch;

/** Sequences of a job, batch by batch. */
export interface Selection {
  readonly sequences: JobSequences;
  readonly batches: readonly Batch[];
  /** The same sequences in as few stretches as can be, each so many times. */
  readonly stretches: readonly (Stretch & { count: number })[];
  /** Number of batches whose longest sequence generates so many tokens. */
  readonly longest: ReadonlyMap<number, number>;
}

/** Blocks that fill the same slots: all full blocks of a job, or its last partial one. */
export interface BlockSet extends Selection {
  readonly gpuBatchSize: number;
  readonly numBlocks: number;
  readonly blocks: readonly BlockGroup[];
  /** Number of blocks whose longest sequence generates so many tokens. */
  readonly longestOfBlock: ReadonlyMap<number, number>;
}

/** The full blocks and the partial one, those that there are. The same sets whenever the same shape asks. */
export function blockSets(
  workload: Workload,
  { gpuBatchSize, numGpuBatches }: Pick<BatchShape, 'gpuBatchSize' | 'numGpuBatches'>,
): readonly BlockSet[] {
  return setsOfShape(workload, gpuBatchSize * SHAPE_STRIDE + numGpuBatches);
}

/** More than any number of GPU batches in a block. */
const SHAPE_STRIDE = 2 ** 26;

const setsOfShape = rememberedFor((workload: Workload, shape: number): BlockSet[] => {
  const gpuBatchSize = Math.floor(shape / SHAPE_STRIDE);
  const numGpuBatches = shape % SHAPE_STRIDE;
  const sequences = jobSequences(workload);
  const blocks = jobBlocks(workload, gpuBatchSize * numGpuBatches);
  const isFull = ({ first, end }: BlockGroup) => end - first === gpuBatchSize * numGpuBatches;
  return [blocks.filter(isFull), blocks.filter((group) => !isFull(group))]
    .filter((groups) => groups.length > 0)
    .map((groups) => blockSet(sequences, gpuBatchSize, groups));
});

/** The blocks of several sets as one set, cut into batches of another size if wanted. */
export function unionOf(sets: readonly BlockSet[], gpuBatchSize: number): BlockSet {
  if (sets.length === 1 && sets[0]!.gpuBatchSize === gpuBatchSize) return sets[0]!;
  return blockSet(
    sets[0]!.sequences,
    gpuBatchSize,
    sets.flatMap(({ blocks }) => blocks),
  );
}

/** The batches of a set with nothing but the sequences in some slots of their block: `ranges`, ascending and apart. */
export function pickSlots(set: BlockSet, ranges: readonly SlotRange[]): Selection {
  const { sequences, gpuBatchSize, blocks } = set;
  const [only] = ranges;
  const mostSlots = Math.max(...blocks.map(({ first, end }) => end - first));
  if (ranges.length === 1 && only!.first === 0 && only!.end >= mostSlots) return set;
  const batches: Batch[] = [];
  for (const { count, first, end } of blocks) {
    let r = 0;
    for (let start = first; start < end; start += gpuBatchSize) {
      const batchEnd = Math.min(start + gpuBatchSize, end);
      const parts: Stretch[] = [];
      for (; r < ranges.length && first + ranges[r]!.first < batchEnd; r++) {
        const range = ranges[r]!;
        const part = { first: Math.max(start, first + range.first), end: Math.min(batchEnd, first + range.end) };
        if (part.end > part.first) parts.push(part);
        if (first + range.end > batchEnd) break;
      }
      if (parts.length > 0) addBatch(sequences, batches, { count, parts });
    }
  }
  return selection(sequences, batches);
}

/** Sum of an amount over all sequences. */
export function totalOf({ sequences, stretches }: Selection, amount: Amount): number {
  let total = 0;
  for (const { count, first, end } of stretches) total += count * sequences.sum(amount, first, end);
  return total;
}

/** The most that the sequences of one GPU batch sum up to. */
export function largestBatchOf({ sequences, batches }: Selection, amount: Amount): number {
  let most = 0;
  for (const { parts } of batches) most = Math.max(most, batchSum(sequences, parts, amount));
  return most;
}

export function batchSum(sequences: JobSequences, parts: Batch['parts'], amount: Amount): number {
  let sum = 0;
  for (const { first, end } of parts) sum += sequences.sum(amount, first, end);
  return sum;
}

function blockSet(sequences: JobSequences, gpuBatchSize: number, blocks: readonly BlockGroup[]): BlockSet {
  const longestOfBlock = new Map<number, number>();
  const batches: Batch[] = [];
  let numBlocks = 0;
  for (const { count, first, end } of blocks) {
    numBlocks += count;
    add(longestOfBlock, sequences.mostGenTokens(first, end), count);
    const numFull = sequences.alike ? Math.floor((end - first) / gpuBatchSize) : 0;
    const rest = first + numFull * gpuBatchSize;
    if (numFull > 0)
      addBatch(sequences, batches, { count: count * numFull, parts: [{ first, end: first + gpuBatchSize }] });
    for (let start = rest; start < end; start += gpuBatchSize)
      addBatch(sequences, batches, { count, parts: [{ first: start, end: Math.min(start + gpuBatchSize, end) }] });
  }
  return { ...selection(sequences, batches), gpuBatchSize, numBlocks, blocks, longestOfBlock };
}

function selection(sequences: JobSequences, batches: readonly Batch[]): Selection {
  const longest = new Map<number, number>();
  const stretches: { count: number; first: number; end: number }[] = [];
  for (const { count, parts } of batches) {
    let most = 0;
    for (const { first, end } of parts) {
      most = Math.max(most, sequences.mostGenTokens(first, end));
      const last = stretches[stretches.length - 1];
      if (last?.end === first && last.count === count) last.end = end;
      else stretches.push({ count, first, end });
    }
    add(longest, most, count);
  }
  return { sequences, batches, stretches, longest };
}

/** Joins batches alike: of sequences alike any that have as many. */
function addBatch({ alike }: JobSequences, batches: Batch[], batch: Batch): void {
  if (!alike) {
    batches.push(batch);
    return;
  }
  const size = batch.parts.reduce((total, { first, end }) => total + end - first, 0);
  const known = batches.find(({ parts }) => parts[0]!.end === size);
  if (known) known.count += batch.count;
  else batches.push({ count: batch.count, parts: [{ first: 0, end: size }] });
}

function add(counts: Map<number, number>, key: number, count: number): void {
  counts.set(key, (counts.get(key) ?? 0) + count);
}
