/** How much the steps of a job handle: which batches launch with how many tokens, and what each sequence adds. */
import { jobBlocks, reservedTokens, type BlockGroup } from '../workload/blocks.js';
import type { SequenceLength, Workload } from '../workload/workload.js';
import type { BatchShape } from './cost-terms.js';

/** What a sequence contributes to a sum. */
export type Amount = (length: SequenceLength) => number;

/** Neighbouring slots of one length. */
interface Run {
  readonly length: SequenceLength;
  numSequences: number;
}

/** `count` GPU batches alike. */
interface Batch {
  count: number;
  readonly runs: readonly Run[];
}

/** Blocks that fill the same slots: all full blocks of a job, or its last partial one. */
export interface BlockSet {
  readonly gpuBatchSize: number;
  readonly numBlocks: number;
  /** Slot by slot. */
  readonly groups: readonly BlockGroup[];
  /** The same sequences batch by batch, without their slots: short where lengths repeat. */
  readonly batches: readonly Batch[];
}

/** Token steps `from <= i < to` of a block; step 0 is prefill. */
export interface StepRange {
  readonly from: number;
  readonly to: number;
}

/** `count` GPU batches with so many tokens and sequences in one launch. */
export interface Launch {
  readonly tokens: number;
  readonly sequences: number;
  readonly count: number;
}

/** A stretch of steps of a block set. `numRuns`: (block, step) pairs in which a sequence is live. Launches are totals over all runs. */
export interface StepLoad {
  readonly set: BlockSet;
  readonly range: StepRange;
  readonly numRuns: number;
  readonly launches: readonly Launch[];
}

/** KV rows may grow by this factor within one segment of decode steps, unless that made too many segments. */
const SEGMENT_GROWTH = 1.5;
const MOST_SEGMENTS = 8;
/** Where sequences end at different steps the load of a step changes for that reason, too. */
const SEGMENTS_OF_MIXED_LENGTHS = 6;

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

function blockSet(gpuBatchSize: number, groups: readonly BlockGroup[]): BlockSet {
  const numBlocks = groups.reduce((sum, { count }) => sum + count, 0);
  return { gpuBatchSize, numBlocks, groups, batches: groups.flatMap((group) => batchesOf(group, gpuBatchSize)) };
}

function batchesOf({ count, sequences }: BlockGroup, gpuBatchSize: number): Batch[] {
  const runs = runsOf(sequences);
  if (runs.length === 1) return batchesOfOneLength(count, runs[0]!, gpuBatchSize);
  const numBatches = Math.ceil(sequences.length / gpuBatchSize);
  return Array.from({ length: numBatches }, (_, k) => ({
    count,
    runs: runsOf(sequences.slice(k * gpuBatchSize, (k + 1) * gpuBatchSize)),
  }));
}

function batchesOfOneLength(count: number, { length, numSequences }: Run, gpuBatchSize: number): Batch[] {
  const numFull = Math.floor(numSequences / gpuBatchSize);
  const rest = numSequences % gpuBatchSize;
  return [
    { count: count * numFull, runs: [{ length, numSequences: gpuBatchSize }] },
    { count: rest > 0 ? count : 0, runs: [{ length, numSequences: rest }] },
  ].filter((batch) => batch.count > 0);
}

function runsOf(sequences: readonly SequenceLength[]): Run[] {
  const runs: Run[] = [];
  for (const length of sequences) addToRuns(runs, length);
  return runs;
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

export function prefillLoad(set: BlockSet): StepLoad {
  return stepLoad(set, { from: 0, to: 1 });
}

/** All decode steps as one load: for layers whose work does not depend on the KV cache. */
export function wholeDecodeLoad(set: BlockSet): StepLoad {
  return stepLoad(set, { from: 1, to: Infinity });
}

/** The decode steps in a few segments, so that the slowest stage may change as the KV cache grows and sequences end. */
export function decodeLoads(set: BlockSet): StepLoad[] {
  let numSteps = 0;
  let fewestSteps = Infinity;
  let fewestRows = Infinity;
  for (const { length } of set.batches.flatMap(({ runs }) => runs)) {
    const steps = reservedTokens(length) - length.promptTokens;
    numSteps = Math.max(numSteps, steps);
    fewestSteps = Math.min(fewestSteps, steps);
    fewestRows = Math.min(fewestRows, length.promptTokens);
  }
  const growth = (fewestRows + numSteps) / fewestRows;
  const wanted = Math.max(
    Math.ceil(Math.log(growth) / Math.log(SEGMENT_GROWTH)),
    fewestSteps < numSteps ? SEGMENTS_OF_MIXED_LENGTHS : 1,
  );
  const numSegments = Math.min(wanted, MOST_SEGMENTS, numSteps);
  const bound = (s: number) => 1 + Math.round(fewestRows * (growth ** (s / numSegments) - 1));
  return Array.from({ length: numSegments }, (_, s) => ({ from: bound(s), to: bound(s + 1) }))
    .filter(({ from, to }) => to > from)
    .map((range) => stepLoad(set, range));
}

/** GPU batches of all runs. */
export function numLaunches({ launches }: StepLoad): number {
  return launches.reduce((total, { count }) => total + count, 0);
}

/** Steps of the range in which the sequence is live. */
export function liveSteps({ from, to }: StepRange): Amount {
  return ({ genTokens }) => Math.max(0, Math.min(to, Math.max(genTokens, 1)) - from);
}

/** Tokens that enter the layers: the whole prompt at prefill, then one a step. */
export function newTokens(range: StepRange): Amount {
  return range.from === 0 ? ({ promptTokens }) => promptTokens : liveSteps(range);
}

/** KV rows of earlier steps, summed over the live steps: they grow by one a step. */
export function pastRows(range: StepRange): Amount {
  const live = liveSteps(range);
  if (range.from === 0) return () => 0;
  return (length) => arithmeticSum(length.promptTokens + range.from - 1, live(length));
}

/** Pairs of a query and a KV row that it attends to, itself included, at most `slidingWindow` rows a query. */
export function attendedRows(range: StepRange, slidingWindow = Infinity): Amount {
  if (range.from === 0) return ({ promptTokens }) => windowedSum(1, promptTokens, slidingWindow);
  const live = liveSteps(range);
  return (length) => windowedSum(length.promptTokens + range.from, live(length), slidingWindow);
}

/** Over the sequences of a GPU batch, then over the batches. */
export interface Fold {
  readonly within: 'sum' | 'max';
  readonly across: 'sum' | 'max';
}
const TOTAL: Fold = { within: 'sum', across: 'sum' };

/** An amount folded over all sequences of the set (by default summed). */
export function foldAll({ batches }: Pick<BlockSet, 'batches'>, amount: Amount, fold: Fold = TOTAL): number {
  let total = 0;
  for (const { count, runs } of batches) {
    let batch = 0;
    for (const { length, numSequences } of runs) {
      const value = amount(length);
      batch = fold.within === 'sum' ? batch + numSequences * value : Math.max(batch, value);
    }
    total = fold.across === 'sum' ? total + count * batch : Math.max(total, batch);
  }
  return total;
}

/** The batches of a set with nothing but the slots that `counts` picks. */
export function pickSlots(
  { gpuBatchSize, groups }: BlockSet,
  counts: (slot: number) => boolean,
): Pick<BlockSet, 'batches'> {
  const batches: Batch[] = [];
  for (const { count, sequences } of groups)
    for (let start = 0; start < sequences.length; start += gpuBatchSize) {
      const runs: Run[] = [];
      const end = Math.min(start + gpuBatchSize, sequences.length);
      for (let slot = start; slot < end; slot++) if (counts(slot)) addToRuns(runs, sequences[slot]!);
      if (runs.length > 0) addBatch(batches, { count, runs });
    }
  return { batches };
}

function stepLoad(set: BlockSet, range: StepRange): StepLoad {
  const live = liveSteps(range);
  const launches: Launch[] = [];
  for (const { count, runs } of set.batches) {
    if (range.from === 0) launches.push({ ...prefillLaunch(runs), count });
    else
      forEachLiveCount(runs, live, (sequences, steps) =>
        launches.push({ tokens: sequences, sequences, count: count * steps }),
      );
  }
  return { set, range, numRuns: numRuns(set, live), launches: mergeAlike(launches) };
}

function prefillLaunch(runs: readonly Run[]): { tokens: number; sequences: number } {
  return runs.reduce(
    (sum, { length, numSequences }) => ({
      tokens: sum.tokens + numSequences * length.promptTokens,
      sequences: sum.sequences + numSequences,
    }),
    { tokens: 0, sequences: 0 },
  );
}

/** (block, step) pairs: each block steps on until its last sequence ends. */
function numRuns({ groups }: BlockSet, live: Amount): number {
  return groups.reduce((total, { count, sequences }) => {
    let most = 0;
    let last: SequenceLength | undefined;
    for (const length of sequences) {
      if (length !== last) most = Math.max(most, live(length));
      last = length;
    }
    return total + count * most;
  }, 0);
}

function mergeAlike(launches: readonly Launch[]): Launch[] {
  const merged = new Map<number, Launch[]>();
  for (const launch of launches) {
    const alike = merged.get(launch.tokens) ?? [];
    const known = alike.findIndex(({ sequences }) => sequences === launch.sequences);
    if (known === -1) alike.push(launch);
    else alike[known] = { ...launch, count: launch.count + alike[known]!.count };
    merged.set(launch.tokens, alike);
  }
  return [...merged.values()].flat();
}

/** Calls with each number of live sequences that the batch has, and for how many steps. */
function forEachLiveCount(runs: readonly Run[], live: Amount, visit: (numLive: number, steps: number) => void): void {
  const bySteps = runs.map(({ length, numSequences }) => ({ steps: live(length), numSequences }));
  bySteps.sort((a, b) => b.steps - a.steps);
  let numLive = 0;
  bySteps.forEach(({ steps, numSequences }, r) => {
    numLive += numSequences;
    const alone = steps - (bySteps[r + 1]?.steps ?? 0);
    if (alone > 0) visit(numLive, alone);
  });
}

/** first + (first + 1) + ... : `count` terms. */
function arithmeticSum(first: number, count: number): number {
  return count * first + (count * (count - 1)) / 2;
}

/** The same with every term cut at `window`. */
function windowedSum(first: number, count: number, window: number): number {
  const uncut = Math.min(count, Math.max(0, window - first));
  return arithmeticSum(first, uncut) + (count > uncut ? (count - uncut) * window : 0);
}
