/**
 * What right I/O formulas must pass, and wrong ones fail: agreement with rows stepped one by one, and with exact optima
 * of small jobs.
 */
import fc from 'fast-check';
import { expect } from 'vitest';
import type * as bounds from '../../src/cost-model/io-bounds.js';
import { fewestLoads, Host, runDiagonal, runRowByRow, countedSequenceBytes, type Job } from './io-model.js';

export type Formulas = Pick<
  typeof bounds,
  | 'sequenceBytes'
  | 'peakSequenceBytes'
  | 'meanSequenceBytes'
  | 'rowByRow'
  | 'diagonal'
  | 'leastWeightLoads'
  | 'zigZagFactor'
  | 'kvIoTokens'
  | 'hiddenIoTokens'
>;

export const jobs = fc.record({
  numLayers: fc.integer({ min: 2, max: 6 }),
  promptTokens: fc.integer({ min: 1, max: 9 }),
  genTokens: fc.integer({ min: 1, max: 7 }),
  kvTokenBytes: fc.integer({ min: 1, max: 4 }),
  hiddenTokenBytes: fc.integer({ min: 0, max: 3 }),
});

export const kvOnly = (numLayers: number, genTokens: number, promptTokens: number): Job => ({
  numLayers,
  genTokens,
  promptTokens,
  kvTokenBytes: 1,
  hiddenTokenBytes: 0,
});

/** Fails unless the formulas agree with the rows stepped one by one. */
export function agreesWithSimulation(formulas: Formulas): void {
  const scenario = fc.record({
    job: jobs,
    count: fc.integer({ min: 1, max: 14 }),
    groupRows: fc.integer({ min: 1, max: 5 }),
    stride: fc.integer({ min: 1, max: 7 }),
  });
  fc.assert(
    fc.property(scenario, ({ job, count, groupRows, stride }) => {
      const columns = job.numLayers * job.genTokens;
      const counted = Array.from({ length: columns }, (_, done) => countedSequenceBytes(job, done));
      expect(counted.map((_, done) => formulas.sequenceBytes(job, done))).toEqual(counted);
      expect(formulas.peakSequenceBytes(job)).toBe(Math.max(...counted));
      expect(formulas.meanSequenceBytes(job) * columns).toBeCloseTo(
        counted.reduce((a, b) => a + b),
        6,
      );
      const group = { shape: job, count };
      const blocks = runRowByRow(new Host(job, count), groupRows);
      expect(formulas.rowByRow(group, groupRows)).toEqual({ weightLoads: blocks.loads, peakBytes: blocks.peakBytes });
      expect(formulas.kvIoTokens(job) * job.numLayers * count).toBe(blocks.kvTokensMoved);
      expect(formulas.hiddenIoTokens(job) * count).toBe(blocks.hiddenTokensMoved);
      const d = Math.min(stride, job.genTokens);
      const staggered = runDiagonal(new Host(job, count), groupRows, d);
      expect(formulas.diagonal(group, groupRows, d)).toEqual({
        weightLoads: staggered.loads,
        peakBytes: staggered.peakBytes,
      });
      expect(staggered.kvTokensMoved).toBe(blocks.kvTokensMoved);
    }),
    { numRuns: 300, seed: 1 },
  );
}

const SMALL_JOBS = [
  [2, 2, 1],
  [2, 2, 2],
  [2, 3, 1],
  [3, 2, 1],
  [2, 1, 2],
  [3, 1, 1],
  [2, 2, 3],
  [3, 2, 2],
  [2, 4, 1],
  [4, 2, 1],
] as const;

interface OptimumCounts {
  instances: number;
  boundTight: number;
  exactFit: number;
}

/** Fails unless lower bound <= optimum <= zig-zag <= factor x optimum on every small instance. */
export function boundsTheOptimum(formulas: Formulas): OptimumCounts {
  const counts = { instances: 0, boundTight: 0, exactFit: 0 };
  for (const [numLayers, genTokens, promptTokens] of SMALL_JOBS) {
    for (const hiddenTokenBytes of [0, 1]) {
      const shape = { ...kvOnly(numLayers, genTokens, promptTokens), kvTokenBytes: 2, hiddenTokenBytes };
      const peak = Math.max(...Array.from({ length: numLayers * genTokens }, (_, c) => countedSequenceBytes(shape, c)));
      for (let capacity = peak; capacity <= 2.5 * peak; capacity += 2) {
        for (const count of [1, 2, 3, 4]) {
          checkInstance(formulas, { shape, count }, capacity, peak, counts);
        }
      }
    }
  }
  return counts;
}

function checkInstance(
  formulas: Formulas,
  group: bounds.SequenceGroup,
  capacity: number,
  peak: number,
  counts: OptimumCounts,
): void {
  const optimum = fewestLoads(group.shape, group.count, capacity)!;
  const least = formulas.leastWeightLoads([group], capacity);
  const block = Math.floor(capacity / peak);
  const zigZag = formulas.rowByRow(group, block).weightLoads;
  expect(least).toBeLessThanOrEqual(optimum);
  expect(optimum).toBeLessThanOrEqual(zigZag);
  const factor = formulas.zigZagFactor(group, capacity);
  expect(zigZag).toBeLessThanOrEqual(factor * optimum * (1 + 1e-12));
  for (let stride = 1; stride <= group.shape.genTokens; stride++) {
    const staggered = formulas.diagonal(group, 1, stride);
    if (staggered.peakBytes <= capacity) expect(optimum).toBeLessThanOrEqual(staggered.weightLoads);
  }
  counts.instances++;
  if (least === optimum) counts.boundTight++;
  if (capacity % peak === 0 && group.count % block === 0) {
    counts.exactFit++;
    expect(zigZag).toBeLessThanOrEqual(2 * optimum);
    expect(factor).toBeLessThanOrEqual(2);
  }
}
