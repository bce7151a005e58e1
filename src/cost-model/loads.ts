/** How much the steps of a job handle: which batches launch with how many tokens, and what each sequence adds. */
import { remembered, rememberedFor } from '../remembered.js';
import { reservedTokens } from '../workload/blocks.js';
import { oneSequence, promptTokensOf, type Amount, type JobSequences } from '../workload/sequences.js';
import { batchSum, totalOf, type BlockSet, type Stretch } from './block-sets.js';

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

/**
 * A stretch of steps of a block set. `numRuns`: (block, step) pairs in which a sequence is live. Launches are totals
 * over all runs.
 */
export interface StepLoad {
  readonly set: BlockSet;
  readonly range: StepRange;
  readonly numRuns: number;
  readonly launches: readonly Launch[];
}

/** Steps that are priced together, as one load or as two: of prompts, and of tokens beside them. */
export interface StepGroup extends Pick<StepLoad, 'numRuns' | 'launches'> {
  readonly parts: readonly StepLoad[];
}

/** Steps in which all do the same. */
export function groupOf(load: StepLoad): StepGroup {
  return { numRuns: load.numRuns, launches: load.launches, parts: [load] };
}

/** KV rows may grow by this factor within one segment of decode steps, unless that made too many segments. */
const SEGMENT_GROWTH = 1.5;
const MOST_SEGMENTS = 8;
/** Where sequences end at different steps the load of a step changes for that reason, too. */
const SEGMENTS_OF_MIXED_LENGTHS = 6;

export const PREFILL: StepRange = { from: 0, to: 1 };
export const DECODE: StepRange = { from: 1, to: Infinity };

export const prefillLoad = remembered((set: BlockSet): StepLoad => stepLoad(set, PREFILL));

/** All decode steps as one load: for layers whose work does not depend on the KV cache. */
export const wholeDecodeLoad = remembered((set: BlockSet): StepLoad => stepLoad(set, DECODE));

/** The decode steps in a few segments, so that the slowest stage may change as the KV cache grows and sequences end. */
export const decodeLoads = remembered((set: BlockSet): readonly StepLoad[] =>
  decodeRanges(set.sequences)
    .map((range) => stepLoad(set, range))
    .filter(({ numRuns }) => numRuns > 0),
);

/** The same for all blocks of a job. */
const decodeRanges = remembered(({ lengths }: JobSequences): StepRange[] => {
  let numSteps = 0;
  let fewestSteps = Infinity;
  let fewestRows = Infinity;
  for (const length of lengths) {
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
  return Array.from({ length: numSegments }, (_, s) => ({ from: bound(s), to: bound(s + 1) })).filter(
    ({ from, to }) => to > from,
  );
});

/** GPU batches of all runs. */
export function numLaunches({ launches }: Pick<StepLoad, 'launches'>): number {
  return launches.reduce((total, { count }) => total + count, 0);
}

const stepsUntil = ({ from, to }: StepRange, genTokens: number): number =>
  Math.max(0, Math.min(to, Math.max(genTokens, 1)) - from);

/**
 * Steps of the range in which the sequence is live. Of one range always the same function, as all amounts here: so sums
 * are remembered.
 */
export const liveSteps = remembered(
  (range: StepRange): Amount =>
    ({ genTokens }) =>
      stepsUntil(range, genTokens),
);

/** Batches (blocks) x steps in which one of their sequences is live, given the longest of each. */
export function liveInstances(longest: ReadonlyMap<number, number>, range: StepRange): number {
  let total = 0;
  for (const [genTokens, count] of longest) total += count * stepsUntil(range, genTokens);
  return total;
}

/** KV rows that are added: the whole prompt at prefill, then one a step. */
export function newRows(range: StepRange): Amount {
  return range.from === 0 ? promptTokensOf : liveSteps(range);
}

/** Tokens that enter the layers: as many, but for what prompts share. */
export function newTokens({ set, range }: Pick<StepLoad, 'set' | 'range'>): Amount {
  return range.from === 0 ? computedPromptTokens(set) : liveSteps(range);
}

/** What all prompts begin with is computed once a block: of each prompt the same part is saved, on average. */
const computedPromptTokens = remembered((set: BlockSet): Amount => {
  const saved = set.sequences.sharedPromptTokens * sharingFraction(set);
  return saved === 0 ? promptTokensOf : ({ promptTokens }) => promptTokens - saved;
});

/** Sequences that are not the first of their block. */
const sharingFraction = remembered((set: BlockSet): number => 1 - set.numBlocks / totalOf(set, oneSequence));

/** KV rows are attended in chunks of so many positions. */
export const CHUNK_ROWS = 64;

/**
 * KV rows of earlier steps that a slot away from the device loads, summed over the live steps: all of them, or with a
 * window of `slidingWindow` rows (none: Infinity) those from the beginning of the chunk in which it begins.
 */
export const loadedRows = rememberedFor((range: StepRange, slidingWindow: number): Amount => {
  if (range.from === 0) return () => 0;
  return ({ promptTokens, genTokens }) => {
    const first = promptTokens + range.from - 1;
    const steps = stepsUntil(range, genTokens);
    const skipped = chunkSum(first + steps - slidingWindow) - chunkSum(first - slidingWindow);
    return arithmeticSum(first, steps) - skipped;
  };
});

/** The sum of the rows in whole chunks before row n, for all n up to `last`. */
function chunkSum(last: number): number {
  if (last < CHUNK_ROWS) return 0;
  const chunks = Math.floor(last / CHUNK_ROWS);
  return CHUNK_ROWS * (CHUNK_ROWS * ((chunks * (chunks - 1)) / 2) + chunks * ((last % CHUNK_ROWS) + 1));
}

/**
 * Pairs of a query and a KV row that it attends to, itself included, at most `slidingWindow` (all: Infinity) rows a
 * query.
 */
export const attendedRows = rememberedFor((range: StepRange, slidingWindow: number): Amount => {
  if (range.from === 0) return ({ promptTokens }) => windowedSum(1, promptTokens, slidingWindow);
  return ({ promptTokens, genTokens }) =>
    windowedSum(promptTokens + range.from, stepsUntil(range, genTokens), slidingWindow);
});

/** Pairs of a query and a KV row at prefill: causal, inside the window, of the tokens that are computed. */
export const prefillPairs = rememberedFor((set: BlockSet, slidingWindow: number): number => {
  const numSharing = totalOf(set, oneSequence) * sharingFraction(set);
  const shared = numSharing * windowedSum(1, set.sequences.sharedPromptTokens, slidingWindow);
  return totalOf(set, attendedRows(PREFILL, slidingWindow)) - shared;
});

function stepLoad(set: BlockSet, range: StepRange): StepLoad {
  const launches = range.from === 0 ? prefillLaunches(set) : decodeLaunches(set, range);
  return { set, range, numRuns: liveInstances(set.longestOfBlock, range), launches };
}

/** More than any number of sequences in a launch. */
const KEY_STRIDE = 2 ** 22;

/**
 * Each batch (chunk) launches once with all its prompts. (A longer prompt than a chunk goes in pieces; they count as
 * one.)
 */
function prefillLaunches(set: BlockSet): Launch[] {
  const { sequences, batches } = set;
  const computed = computedPromptTokens(set);
  const launches = new Map<number, { tokens: number; sequences: number; count: number }>();
  for (const { count, parts } of batches) {
    const tokens = Math.round(batchSum(sequences, parts, computed));
    const size = batchSum(sequences, parts, oneSequence);
    const key = tokens * KEY_STRIDE + size;
    const known = launches.get(key);
    if (known) known.count += count;
    else launches.set(key, { tokens, sequences: size, count });
  }
  return [...launches.values()];
}

function decodeLaunches(set: BlockSet, range: StepRange): Launch[] {
  const counts = new Map<number, number>();
  for (const { numLive, from, to, count } of liveStretches(set)) {
    const steps = Math.min(to, range.to) - Math.max(from, range.from);
    if (steps > 0) counts.set(numLive, (counts.get(numLive) ?? 0) + count * steps);
  }
  return [...counts].map(([numLive, count]) => ({ tokens: numLive, sequences: numLive, count }));
}

/** So many batches have so many live sequences at the decode steps `from <= i < to`. */
interface LiveStretch {
  readonly numLive: number;
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

/**
 * A batch with its sequences in order of their end: it launches with the first m from the end of the next shorter one
 * on.
 */
const liveStretches = remembered(({ sequences, batches }: BlockSet): LiveStretch[] =>
  batches.flatMap(({ count, parts }) => {
    const [{ first, end }] = parts as [Stretch];
    const ends = sequences.genTokensDescending(first, end);
    const stretches: LiveStretch[] = [];
    let numLive = 0;
    ends.forEach(({ genTokens, numSequences }, e) => {
      numLive += numSequences;
      const from = Math.max(1, ends[e + 1]?.genTokens ?? 1);
      if (genTokens > from) stretches.push({ numLive, from, to: genTokens, count });
    });
    return stretches;
  }),
);

/** first + (first + 1) + ... : `count` terms. */
function arithmeticSum(first: number, count: number): number {
  return count * first + (count * (count - 1)) / 2;
}

/** The same with every term cut at `window`. */
function windowedSum(first: number, count: number, window: number): number {
  const uncut = Math.min(count, Math.max(0, window - first));
  return arithmeticSum(first, uncut) + (count > uncut ? (count - uncut) * window : 0);
}
