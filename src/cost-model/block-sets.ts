/**
 * A job's sequences as blocks and GPU batches, each a stretch of the job: what it sums up to is known without walking
 * over it.
 */
import { rememberedFor } from '../remembered.js';
import { jobBlocks, type BlockGroup } from '../workload/blocks.js';
import { jobSequences, promptTokensOf, type Amount, type JobSequences } from '../workload/sequences.js';
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
  /** Batches have no more prompt tokens than this, but one sequence at least: prefill chunks. Infinity: GPU batches. */
  readonly chunkTokens: number;
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
    .map((groups) => blockSet(sequences, { gpuBatchSize, chunkTokens: Infinity }, groups));
});

/** The blocks of several sets as one set, cut into batches of another size if wanted. */
export function unionOf(sets: readonly BlockSet[], gpuBatchSize: number): BlockSet {
  if (sets.length === 1 && sets[0]!.gpuBatchSize === gpuBatchSize) return sets[0]!;
  return blockSet(
    sets[0]!.sequences,
    { gpuBatchSize, chunkTokens: Infinity },
    sets.flatMap(({ blocks }) => blocks),
  );
}

/** The same blocks with each GPU batch cut into prefill chunks; the set itself where none is larger than a chunk. */
export const inChunks = rememberedFor((set: BlockSet, chunkTokens: number): BlockSet => {
  const { sequences, gpuBatchSize, blocks } = set;
  if (largestBatchOf(set, promptTokensOf) <= chunkTokens) return set;
  return blockSet(sequences, { gpuBatchSize, chunkTokens }, blocks);
});

export function isInChunks({ chunkTokens }: BlockSet): boolean {
  return chunkTokens < Infinity;
}

/** The most batches (chunks) of a block. */
export function mostBatches(set: BlockSet): number {
  return Math.max(...set.blocks.map((block) => cutBlock(set.sequences, set, block).length));
}

/** The batches of a set with nothing but the sequences in some slots of their block: `ranges`, ascending and apart. */
export function pickSlots(set: BlockSet, ranges: readonly SlotRange[]): Selection {
  const { sequences, blocks } = set;
  const [only] = ranges;
  const mostSlots = Math.max(...blocks.map(({ first, end }) => end - first));
  if (ranges.length === 1 && only!.first === 0 && only!.end >= mostSlots) return set;
  const batches: Batch[] = [];
  for (const block of blocks) {
    const { count, first } = block;
    let r = 0;
    for (const { first: start, end: batchEnd } of cutBlock(sequences, set, block)) {
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

type Cut = Pick<BlockSet, 'gpuBatchSize' | 'chunkTokens'>;

/** A block's batches (chunks) in order. */
function cutBlock(sequences: JobSequences, { gpuBatchSize, chunkTokens }: Cut, { first, end }: Stretch): Stretch[] {
  const batches: Stretch[] = [];
  for (let start = first; start < end;) {
    const batchEnd = Math.min(first + (Math.floor((start - first) / gpuBatchSize) + 1) * gpuBatchSize, end);
    let stop = chunkTokens < Infinity ? start + 1 : batchEnd;
    while (stop < batchEnd && sequences.sum(promptTokensOf, start, stop + 1) <= chunkTokens) stop++;
    batches.push({ first: start, end: stop });
    start = stop;
  }
  return batches;
}

function blockSet(sequences: JobSequences, cut: Cut, blocks: readonly BlockGroup[]): BlockSet {
  const { gpuBatchSize } = cut;
  const longestOfBlock = new Map<number, number>();
  const batches: Batch[] = [];
  let numBlocks = 0;
  for (const { count, first, end } of blocks) {
    numBlocks += count;
    add(longestOfBlock, sequences.mostGenTokens(first, end), count);
    const numFull = sequences.alike ? Math.floor((end - first) / gpuBatchSize) : 0;
    const rest = first + numFull * gpuBatchSize;
    const addCut = (times: number, stretch: Stretch) => {
      for (const part of cutBlock(sequences, cut, stretch))
        addBatch(sequences, batches, { count: times, parts: [part] });
    };
    if (numFull > 0) addCut(count * numFull, { first, end: first + gpuBatchSize });
    addCut(count, { first: rest, end });
  }
  return { ...selection(sequences, batches), ...cut, numBlocks, blocks, longestOfBlock };
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
