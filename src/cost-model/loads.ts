/** How much the steps of a job handle: which batches launch with how many tokens, and what each sequence adds. */
import { jobBlocks, reservedTokens, type BlockGroup } from '../workload/blocks.js';
import type { SequenceLength, Workload } from '../workload/workload.js';
import type { BatchShape } from './cost-terms.js';

/** What a sequence contributes to a sum. Sequences of one length share one object, so sums remember the last answer. */
export type Amount = (length: SequenceLength) => number;

/** Blocks that fill the same slots: all full blocks of a job, or its last partial one. */
export interface BlockSet {
  readonly gpuBatchSize: number;
  readonly groups: readonly BlockGroup[];
  readonly numBlocks: number;
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
    .map((groups) => ({ gpuBatchSize, groups, numBlocks: groups.reduce((sum, { count }) => sum + count, 0) }));
}

export function prefillLoad(set: BlockSet): StepLoad {
  return stepLoad(set, { from: 0, to: 1 });
}

/** The decode steps in a few segments, so that the slowest stage may change as the KV cache grows and sequences end. */
export function decodeLoads(set: BlockSet): StepLoad[] {
  let numSteps = 0;
  let fewestSteps = Infinity;
  let fewestRows = Infinity;
  forEachSequence(set, (length) => {
    numSteps = Math.max(numSteps, reservedTokens(length) - length.promptTokens);
    fewestSteps = Math.min(fewestSteps, reservedTokens(length) - length.promptTokens);
    fewestRows = Math.min(fewestRows, length.promptTokens);
  });
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

/** Sum of an amount over all sequences of the set. */
export function totalAmount(set: BlockSet, amount: Amount): number {
  return sumOver(set, amount, () => true);
}

/** Sum of an amount over the sequences in the slots that `counts` picks. */
export function sumOver(set: BlockSet, amount: Amount, counts: (slot: number) => boolean): number {
  const valueOf = remembering(amount);
  let total = 0;
  for (const { count, sequences } of set.groups) {
    let block = 0;
    for (let slot = 0; slot < sequences.length; slot++) if (counts(slot)) block += valueOf(sequences[slot]!);
    total += count * block;
  }
  return total;
}

/** For each GPU batch the fold of an amount over the picked slots (`add` or `max`), then the fold of these over all batches. */
export function foldBatches(
  set: BlockSet,
  amount: Amount,
  counts: (slot: number) => boolean,
  fold: { readonly within: 'sum' | 'max'; readonly across: 'sum' | 'max' },
): number {
  const valueOf = remembering(amount);
  let total = 0;
  for (const { count, sequences } of set.groups) {
    for (let start = 0; start < sequences.length; start += set.gpuBatchSize) {
      const end = Math.min(start + set.gpuBatchSize, sequences.length);
      let batch = 0;
      for (let slot = start; slot < end; slot++) {
        if (!counts(slot)) continue;
        const value = valueOf(sequences[slot]!);
        batch = fold.within === 'sum' ? batch + value : Math.max(batch, value);
      }
      total = fold.across === 'sum' ? total + count * batch : Math.max(total, batch);
    }
  }
  return total;
}

function stepLoad(set: BlockSet, range: StepRange): StepLoad {
  const live = liveSteps(range);
  let numRuns = 0;
  const launches = new Map<string, { tokens: number; sequences: number; count: number }>();
  const addLaunch = (tokens: number, sequences: number, count: number) => {
    const key = `${tokens} ${sequences}`;
    const known = launches.get(key);
    if (known) known.count += count;
    else launches.set(key, { tokens, sequences, count });
  };
  for (const { count, sequences } of set.groups) {
    numRuns += count * mostOf(sequences, live);
    for (let start = 0; start < sequences.length; start += set.gpuBatchSize) {
      const batch = sequences.slice(start, start + set.gpuBatchSize);
      if (range.from === 0) addLaunch(totalPrompt(batch), batch.length, count);
      else forEachLiveCount(batch.map(live), (numLive, steps) => addLaunch(numLive, numLive, count * steps));
    }
  }
  return { set, range, numRuns, launches: [...launches.values()] };
}

/** Calls with each number of live sequences and for how many steps it holds, given the live steps of each sequence. */
function forEachLiveCount(steps: number[], visit: (numLive: number, steps: number) => void): void {
  steps.sort((a, b) => b - a);
  steps.forEach((n, s) => {
    const alone = n - (steps[s + 1] ?? 0);
    if (alone > 0) visit(s + 1, alone);
  });
}

function forEachSequence({ groups }: BlockSet, visit: (length: SequenceLength) => void): void {
  let last: SequenceLength | undefined;
  for (const { sequences } of groups)
    for (const length of sequences) {
      if (length !== last) visit(length);
      last = length;
    }
}

function mostOf(sequences: readonly SequenceLength[], amount: Amount): number {
  return sequences.reduce((most, length) => Math.max(most, amount(length)), 0);
}

function totalPrompt(batch: readonly SequenceLength[]): number {
  return batch.reduce((sum, { promptTokens }) => sum + promptTokens, 0);
}

function remembering(amount: Amount): Amount {
  let last: SequenceLength | undefined;
  let value = 0;
  return (length) => {
    if (length !== last) value = amount(length);
    last = length;
    return value;
  };
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
