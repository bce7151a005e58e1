/** A job's sequences as blocks and GPU batches, summed up once so that terms need not walk over prompt files again and again. */
import { jobBlocks, type BlockGroup } from '../workload/blocks.js';
import type { SequenceLength, Workload } from '../workload/workload.js';
import type { BatchShape } from './cost-terms.js';

/** What a sequence contributes to a sum. */
export type Amount = (length: SequenceLength) => number;

/** Sequences of one length. */
interface Run {
  readonly length: SequenceLength;
  numSequences: number;
}

/** `count` GPU batches alike. */
interface Batch {
  count: number;
  readonly runs: readonly Run[];
}

/** Sequences of a job, batch by batch. */
export interface Selection {
  readonly batches: readonly Batch[];
  /** The same sequences without their batches: how many of each length. */
  readonly lengths: readonly Run[];
  /** Number of batches whose longest sequence generates so many tokens. */
  readonly longest: ReadonlyMap<number, number>;
}

/** Blocks that fill the same slots: all full blocks of a job, or its last partial one. */
export interface BlockSet extends Selection {
  readonly gpuBatchSize: number;
  readonly numBlocks: number;
  /** Slot by slot. */
  readonly groups: readonly BlockGroup[];
  /** Number of blocks whose longest sequence generates so many tokens. */
  readonly longestOfBlock: ReadonlyMap<number, number>;
}

/** The full blocks and the partial one, those that there are. */
export function blockSets(workload: Workload, shape: Pick<BatchShape, 'gpuBatchSize' | 'numGpuBatches'>): BlockSet[] {
  const { gpuBatchSize, numGpuBatches } = shape;
  const blocks = jobBlocks(workload, gpuBatchSize * numGpuBatches);
  const isFull = (group: BlockGroup) => group.sequences.length === gpuBatchSize * numGpuBatches;
  return [blocks.filter(isFull), blocks.filter((group) => !isFull(group))]
    .filter((groups) => groups.length > 0)
    .map((groups) => blockSet(gpuBatchSize, groups));
}

/** The blocks of several sets as one set, cut into batches of another size if wanted. */
export function unionOf(sets: readonly BlockSet[], gpuBatchSize: number): BlockSet {
  return blockSet(
    gpuBatchSize,
    sets.flatMap(({ groups }) => groups),
  );
}

/** The batches of a set with nothing but the slots that `counts` picks. */
export function pickSlots({ gpuBatchSize, groups }: BlockSet, counts: (slot: number) => boolean): Selection {
  return selection(groups.flatMap((group) => batchesOf(group, gpuBatchSize, counts)));
}

/** Sum of an amount over all sequences. */
export function totalOf({ lengths }: Selection, amount: Amount): number {
  return lengths.reduce((total, { length, numSequences }) => total + numSequences * amount(length), 0);
}

/** The most that the sequences of one GPU batch sum up to. */
export function largestBatchOf({ batches }: Selection, amount: Amount): number {
  return batches.reduce((most, { runs }) => {
    const sum = runs.reduce((total, { length, numSequences }) => total + numSequences * amount(length), 0);
    return Math.max(most, sum);
  }, 0);
}

function blockSet(gpuBatchSize: number, groups: readonly BlockGroup[]): BlockSet {
  const all = () => true;
  const longestOfBlock = new Map<number, number>();
  for (const { count, sequences } of groups) add(longestOfBlock, mostGenTokens(sequences), count);
  return {
    ...selection(groups.flatMap((group) => batchesOf(group, gpuBatchSize, all))),
    gpuBatchSize,
    numBlocks: groups.reduce((total, { count }) => total + count, 0),
    groups,
    longestOfBlock,
  };
}

/** More than any number of generated tokens. */
const KEY_STRIDE = 2 ** 26;

function selection(batches: readonly Batch[]): Selection {
  const lengths = new Map<number, Run>();
  const longest = new Map<number, number>();
  for (const { count, runs } of batches) {
    for (const { length, numSequences } of runs) {
      const key = length.promptTokens * KEY_STRIDE + length.genTokens;
      const known = lengths.get(key);
      if (known) known.numSequences += count * numSequences;
      else lengths.set(key, { length, numSequences: count * numSequences });
    }
    add(longest, mostGenTokens(runs.map(({ length }) => length)), count);
  }
  return { batches, lengths: [...lengths.values()], longest };
}

function batchesOf(group: BlockGroup, gpuBatchSize: number, counts: (slot: number) => boolean): Batch[] {
  const { count, sequences } = group;
  const batches: Batch[] = [];
  for (let start = 0; start < sequences.length; start += gpuBatchSize) {
    const runs: Run[] = [];
    const end = Math.min(start + gpuBatchSize, sequences.length);
    for (let slot = start; slot < end; slot++) if (counts(slot)) addToRuns(runs, sequences[slot]!);
    if (runs.length > 0) addBatch(batches, { count, runs });
  }
  return batches;
}

function addToRuns(runs: Run[], length: SequenceLength): void {
  const last = runs[runs.length - 1];
  if (last?.length === length) last.numSequences++;
  else runs.push({ length, numSequences: 1 });
}

/** Joins batches alike. */
function addBatch(batches: Batch[], batch: Batch): void {
  const last = batches[batches.length - 1];
  const isAlike = (run: Run, r: number) =>
    run.length === batch.runs[r]?.length && run.numSequences === batch.runs[r].numSequences;
  if (last?.runs.length === batch.runs.length && last.runs.every(isAlike)) last.count += batch.count;
  else batches.push(batch);
}

function mostGenTokens(sequences: readonly SequenceLength[]): number {
  return sequences.reduce((most, { genTokens }) => Math.max(most, genTokens), 0);
}

function add(counts: Map<number, number>, key: number, count: number): void {
  counts.set(key, (counts.get(key) ?? 0) + count);
}
