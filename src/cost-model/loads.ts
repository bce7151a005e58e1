/** How much the steps of a job handle: which batches launch with how many tokens, and what each sequence adds. */
import { reservedTokens } from '../workload/blocks.js';
import type { Amount, BlockSet } from './block-sets.js';

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
  for (const { length } of set.lengths) {
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

/** Batches (blocks) x steps in which one of their sequences is live, given the longest of each. */
export function liveInstances(longest: ReadonlyMap<number, number>, range: StepRange): number {
  const live = liveSteps(range);
  let total = 0;
  for (const [genTokens, count] of longest) total += count * live({ promptTokens: 0, genTokens });
  return total;
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

function stepLoad(set: BlockSet, range: StepRange): StepLoad {
  const launches = range.from === 0 ? prefillLaunches(set) : decodeLaunches(set, range);
  return { set, range, numRuns: liveInstances(set.longestOfBlock, range), launches };
}

/** Each batch launches once with all its prompts. */
function prefillLaunches({ batches }: BlockSet): Launch[] {
  const launches = new Map<string, { tokens: number; sequences: number; count: number }>();
  for (const { count, runs } of batches) {
    const sequences = runs.reduce((total, { numSequences }) => total + numSequences, 0);
    const tokens = runs.reduce((total, { length, numSequences }) => total + numSequences * length.promptTokens, 0);
    const known = launches.get(`${tokens} ${sequences}`);
    if (known) known.count += count;
    else launches.set(`${tokens} ${sequences}`, { tokens, sequences, count });
  }
  return [...launches.values()];
}

/** A batch with its sequences in order of their end: it launches with the first m from the end of the next shorter one on. */
function decodeLaunches({ batches }: BlockSet, range: StepRange): Launch[] {
  const live = liveSteps(range);
  const counts = new Map<number, number>();
  for (const { count, runs } of batches) {
    const byEnd = runs.map(({ length, numSequences }) => ({ steps: live(length), numSequences }));
    if (byEnd.length > 1) byEnd.sort((a, b) => b.steps - a.steps);
    let numLive = 0;
    byEnd.forEach(({ steps, numSequences }, r) => {
      numLive += numSequences;
      const alone = steps - (byEnd[r + 1]?.steps ?? 0);
      if (alone > 0) counts.set(numLive, (counts.get(numLive) ?? 0) + count * alone);
    });
  }
  return [...counts].map(([numLive, count]) => ({ tokens: numLive, sequences: numLive, count }));
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
