import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  attendedRows,
  decodeLoads,
  loadedRows,
  newTokens,
  prefillLoad,
  prefillPairs,
  wholeDecodeLoad,
  type StepLoad,
} from '../../src/cost-model/loads.js';
import { blockSets, pickSlots, totalOf, type BlockSet } from '../../src/cost-model/block-sets.js';
import { workloadFromNumbers, workloadFromSequences } from '../../src/workload/blocks.js';
import type { SequenceLength, Workload } from '../../src/workload/workload.js';
import { anyLongWorkload, anyWorkload } from './arbitraries.js';

const anyShape = fc.record({
  gpuBatchSize: fc.integer({ min: 1, max: 6 }),
  numGpuBatches: fc.integer({ min: 1, max: 4 }),
});
const window = 16;
const windows = [1, 2, 16, 70, Infinity];

/** Block by block the sequences that sit in its slots. */
function blocksOf({ blocks }: BlockSet, workload: Workload) {
  return blocks.map(({ count, first, end }) => {
    const sequences = workload.sequences?.slice(first, end) ?? new Array<SequenceLength>(end - first).fill(workload);
    return { count, sequences };
  });
}

/** Past rows less the whole chunks of 64 that lie before the window. */
function loaded(past: number, slidingWindow: number): number {
  const attended = Math.max(0, past + 1 - slidingWindow);
  return past - (attended - (attended % 64));
}

/** The same sums, one step and one sequence at a time. */
function countStepByStep({ set, range }: StepLoad, workload: Workload) {
  const counted = {
    runs: 0,
    tokens: 0,
    loaded: windows.map(() => 0),
    attended: 0,
    launches: new Map<string, number>(),
  };
  const blocks = blocksOf(set, workload);
  const mostSteps = Math.max(...blocks.flatMap(({ sequences }) => sequences.map(({ genTokens }) => genTokens)));
  for (const { count, sequences } of blocks)
    for (let i = range.from; i < Math.min(range.to, mostSteps); i++) {
      if (sequences.some(({ genTokens }) => i < genTokens)) counted.runs += count;
      for (let start = 0; start < sequences.length; start += set.gpuBatchSize) {
        const live = sequences.slice(start, start + set.gpuBatchSize).filter(({ genTokens }) => i < genTokens);
        if (live.length === 0) continue;
        const tokens = i === 0 ? live.reduce((sum, { promptTokens }) => sum + promptTokens, 0) : live.length;
        const key = `${tokens} of ${live.length}`;
        counted.launches.set(key, (counted.launches.get(key) ?? 0) + count);
        counted.tokens += count * tokens;
        for (const { promptTokens } of live) {
          const queries = i === 0 ? Array.from({ length: promptTokens }, (_, t) => t + 1) : [promptTokens + i];
          windows.forEach((size, w) => {
            counted.loaded[w]! += i === 0 ? 0 : count * loaded(promptTokens + i - 1, size);
          });
          for (const rows of queries) counted.attended += count * Math.min(rows, window);
        }
      }
    }
  return counted;
}

function expectCounted(load: StepLoad, workload: Workload): void {
  const counted = countStepByStep(load, workload);
  expect(load.numRuns).toBe(counted.runs);
  expect(totalOf(load.set, newTokens(load))).toBe(counted.tokens);
  expect(windows.map((size) => totalOf(load.set, loadedRows(load.range, size)))).toEqual(counted.loaded);
  expect(totalOf(load.set, attendedRows(load.range, window))).toBe(counted.attended);
  const launches = load.launches.map(({ tokens, sequences, count }) => [`${tokens} of ${sequences}`, count] as const);
  expect(new Map(launches)).toEqual(counted.launches);
}

describe('loads', () => {
  it('sum what a count step by step sums, in every segment', () => {
    let segments = 0;
    fc.assert(
      fc.property(anyLongWorkload, anyShape, (workload, shape) => {
        for (const set of blockSets(workload, shape)) {
          expectCounted(prefillLoad(set), workload);
          expectCounted(wholeDecodeLoad(set), workload);
          for (const load of decodeLoads(set)) {
            expectCounted(load, workload);
            segments++;
          }
        }
      }),
    );
    expect(segments).toBeGreaterThan(100);
  });

  it('have what all prompts begin with once a block', () => {
    let shared = 0;
    fc.assert(
      fc.property(anyLongWorkload, anyShape, fc.nat(1), (workload, shape, longest) => {
        const lengths = workload.sequences ?? [workload];
        const most = Math.min(...lengths.map(({ promptTokens }) => promptTokens)) - 1;
        const sharedPromptTokens = longest === 0 ? most : Math.floor(most / 2);
        for (const set of blockSets({ ...workload, sharedPromptTokens }, shape)) {
          const counted = { tokens: 0, pairs: 0 };
          for (const { count, sequences } of blocksOf(set, workload))
            sequences.forEach(({ promptTokens }, n) => {
              const first = n === 0 ? 0 : sharedPromptTokens;
              shared += first;
              counted.tokens += count * (promptTokens - first);
              for (let t = first; t < promptTokens; t++) counted.pairs += count * Math.min(t + 1, window);
            });
          const load = prefillLoad(set);
          expect(totalOf(set, newTokens(load))).toBeCloseTo(counted.tokens, 6);
          expect(prefillPairs(set, window)).toBeCloseTo(counted.pairs, 6);
          const launched = load.launches.reduce((sum, { tokens, count }) => sum + tokens * count, 0);
          const numLaunches = load.launches.reduce((sum, { count }) => sum + count, 0);
          expect(Math.abs(launched - counted.tokens)).toBeLessThanOrEqual(numLaunches / 2); // rounded
        }
      }),
    );
    expect(shared).toBeGreaterThan(1000);
  });

  it('of picked slots are those of the sequences that sit there', () => {
    let picked = 0;
    fc.assert(
      fc.property(anyWorkload, anyShape, fc.integer({ min: 1, max: 4 }), (workload, shape, every) => {
        const counts = (slot: number) => slot % every === 0;
        const numSlots = shape.gpuBatchSize * shape.numGpuBatches;
        const slots = Array.from({ length: numSlots }, (_, b) => b).filter(counts);
        for (const set of blockSets(workload, shape)) {
          const selection = pickSlots(
            set,
            slots.map((b) => ({ first: b, end: b + 1 })),
          );
          const there = blocksOf(set, workload).flatMap(({ count, sequences }) =>
            sequences.filter((_, slot) => counts(slot)).map((length) => ({ count, length })),
          );
          const amount = ({ promptTokens, genTokens }: SequenceLength) => promptTokens * 100 + genTokens;
          const total = there.reduce((sum, { count, length }) => sum + count * amount(length), 0);
          expect(totalOf(selection, amount)).toBe(total);
          const numSequences = selection.batches.reduce(
            (sum, { count, parts }) => sum + count * parts.reduce((n, { first, end }) => n + end - first, 0),
            0,
          );
          expect(numSequences).toBe(there.reduce((sum, { count }) => sum + count, 0));
          picked += numSequences;
        }
      }),
    );
    expect(picked).toBeGreaterThan(200);
  });

  it('cover every decode step of every block once, in at most eight segments', () => {
    fc.assert(
      fc.property(anyWorkload, anyShape, (workload, shape) => {
        for (const set of blockSets(workload, shape)) {
          const ranges = decodeLoads(set).map(({ range }) => range);
          const mostSteps = Math.max(...blocksOf(set, workload).flatMap((b) => b.sequences.map((s) => s.genTokens)));
          expect(ranges.length).toBeLessThanOrEqual(8);
          expect(ranges[0]?.from ?? 1).toBe(1);
          expect(ranges[ranges.length - 1]?.to ?? mostSteps).toBeGreaterThanOrEqual(mostSteps);
          ranges.slice(1).forEach(({ from }, r) => expect(from).toBe(ranges[r]!.to));
        }
      }),
    );
  });

  it('take one segment where the KV cache hardly grows, several where it does', () => {
    const segments = (promptTokens: number, genTokens: number) =>
      decodeLoads(blockSets(workloadFromNumbers(promptTokens, genTokens), { gpuBatchSize: 4, numGpuBatches: 2 })[0]!)
        .length;
    expect(segments(512, 32)).toBe(1);
    expect(segments(128, 128)).toBe(2);
    expect(segments(16, 512)).toBe(8);
    expect(segments(16, 1)).toBe(0);
  });

  it('see a batch shrink as its sequences end', () => {
    const sequences = [4, 2, 4].map((genTokens) => ({ promptTokens: 5, genTokens }));
    const [set] = blockSets(workloadFromSequences(sequences), { gpuBatchSize: 3, numGpuBatches: 1 });
    expect(wholeDecodeLoad(set!).launches).toEqual([
      { tokens: 2, sequences: 2, count: 2 },
      { tokens: 3, sequences: 3, count: 1 },
    ]);
  });
});
