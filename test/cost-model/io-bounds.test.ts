import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as bounds from '../../src/cost-model/io-bounds.js';
import { FlexplanError } from '../../src/errors.js';
import { findModel } from '../../src/models/registry.js';
import type { Policy } from '../../src/policy/policy.js';
import { countedSequenceBytes, fewestLoads, Host, runDiagonal, runRowByRow, type Job } from './io-model.js';

type Formulas = Pick<
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

const jobs = fc.record({
  numLayers: fc.integer({ min: 2, max: 6 }),
  promptTokens: fc.integer({ min: 1, max: 9 }),
  genTokens: fc.integer({ min: 1, max: 7 }),
  kvTokenBytes: fc.integer({ min: 1, max: 4 }),
  hiddenTokenBytes: fc.integer({ min: 0, max: 3 }),
});

const kvOnly = (numLayers: number, genTokens: number, promptTokens: number): Job => ({
  numLayers,
  genTokens,
  promptTokens,
  kvTokenBytes: 1,
  hiddenTokenBytes: 0,
});

/** Fails unless the formulas agree with the rows stepped one by one. */
function agreesWithSimulation(formulas: Formulas): void {
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
function boundsTheOptimum(formulas: Formulas): OptimumCounts {
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

describe('the I/O formulas', () => {
  it('agree with rows stepped one column at a time', () => {
    agreesWithSimulation(bounds);
  });

  it('bound the true optimum: least <= optimum <= zig-zag <= factor x optimum, twice at most where blocks fit exactly', () => {
    const counts = boundsTheOptimum(bounds);
    expect(counts.instances).toBeGreaterThan(400);
    expect(counts.exactFit).toBeGreaterThan(50);
    expect(counts.boundTight).toBeGreaterThan(100);
  });

  it('are never beaten by random valid schedules', () => {
    let finished = 0;
    fc.assert(
      fc.property(jobs, fc.integer({ min: 2, max: 10 }), fc.infiniteStream(fc.nat()), (job, count, randoms) => {
        const capacity = 2 * bounds.peakSequenceBytes(job);
        const host = new Host(job, count, capacity);
        runAtRandom(host, () => randoms.next().value as number);
        expect(host.loads).toBeGreaterThanOrEqual(bounds.leastWeightLoads([{ shape: job, count }], capacity));
        finished++;
      }),
      { numRuns: 100, seed: 2 },
    );
    expect(finished).toBe(100);
  });

  it('keep the printed gap of the paper workloads: OPT-175B, P / A and what the diagonal gains', () => {
    const gaps = [
      { promptTokens: 512, genTokens: 32, gap: 1.0464, gain: 1.0297 },
      { promptTokens: 256, genTokens: 32, gap: 1.075, gain: 1.0574 },
      { promptTokens: 1024, genTokens: 32, gap: 1.0314, gain: 1.0152 },
      { promptTokens: 128, genTokens: 128, gap: 1.3386, gain: 1.3317 },
      { promptTokens: 16, genTokens: 512, gap: 1.9448, gain: 1.9411 },
    ];
    for (const { promptTokens, genTokens, gap, gain } of gaps) {
      const shape = kvOnly(96, genTokens, promptTokens);
      expect(bounds.peakSequenceBytes(shape) / bounds.meanSequenceBytes(shape)).toBeCloseTo(gap, 4);
      const staggered = bounds.diagonal({ shape, count: 4 * genTokens }, 1, 1);
      expect((genTokens * bounds.peakSequenceBytes(shape)) / staggered.peakBytes).toBeCloseTo(gain, 4);
    }
  });

  it('approach optimality with the diagonal as more tokens are generated', () => {
    const excess = [2, 8, 32, 128].map((genTokens) => {
      const shape = kvOnly(96, genTokens, 512);
      const { peakBytes } = bounds.diagonal({ shape, count: 4 * genTokens }, 1, 1);
      return shape.numLayers / bounds.leastWeightLoadsPerSequence(shape, peakBytes);
    });
    expect(excess.map((x) => Number(x.toFixed(4)))).toEqual([1.3314, 1.0665, 1.0162, 1.0043]);
  });
});

describe('FlexGen\'s "within 2x" without exact fit', () => {
  const shape = kvOnly(2, 3, 1);
  const capacity = 9;

  it('fails: where one row takes 5 of 9 tokens, zig-zag needs three times the loads of the diagonal', () => {
    expect(bounds.largestBlock(shape, capacity)).toBe(1);
    expect(() => runRowByRow(new Host(shape, 30, capacity), 2)).toThrow('capacity exceeded');
    const zigZag = runRowByRow(new Host(shape, 30, capacity), 1);
    const staggered = runDiagonal(new Host(shape, 30, capacity), 1, 1);
    expect(zigZag.loads).toBe(180);
    expect(staggered.loads).toBe(2 * (29 + 3));
    const perRow = bounds.rowByRow({ shape, count: 1e6 }, 1).weightLoads / 1e6;
    const staggeredPerRow = bounds.diagonal({ shape, count: 1e6 }, 1, 1).weightLoads / 1e6;
    expect(perRow / staggeredPerRow).toBeCloseTo(3, 4);
    expect(bounds.zigZagFactor({ shape, count: 1e6 }, capacity)).toBeGreaterThanOrEqual(3);
  });

  it('says when not even one sequence fits', () => {
    expect(() => bounds.largestBlock(shape, 4)).toThrow(FlexplanError);
  });
});

describe('wrong formulas', () => {
  const mutants: Record<string, Partial<Formulas>> = {
    'a lower bound a quarter too high': {
      leastWeightLoads: (groups, capacity) => Math.ceil(1.25 * bounds.leastWeightLoads(groups, capacity)),
    },
    'a diagonal with one load more': {
      diagonal: (...args) => ({ ...bounds.diagonal(...args), weightLoads: bounds.diagonal(...args).weightLoads + 1 }),
    },
    'a peak that counts the last token too': {
      peakSequenceBytes: (shape) => bounds.peakSequenceBytes({ ...shape, genTokens: shape.genTokens + 1 }),
    },
    'KV traffic that forgets the newest token': {
      kvIoTokens: (shape) => bounds.kvIoTokens(shape) - shape.genTokens,
    },
    'a zig-zag that loads once per row instead of once per block': {
      rowByRow: (group, rows) => ({
        ...bounds.rowByRow(group, rows),
        weightLoads: bounds.rowByRow(group, 1).weightLoads,
      }),
    },
    "a factor that is the paper's 2 whatever the rounding, halved": { zigZagFactor: () => 1 },
    'a footprint that keeps hidden states of the whole prompt during decode': {
      sequenceBytes: (shape, done) =>
        bounds.sequenceBytes(shape, done) +
        (done >= shape.numLayers ? shape.hiddenTokenBytes * (shape.promptTokens - 1) : 0),
    },
  };

  it.each(Object.entries(mutants))('are caught: %s', (_, mutation) => {
    const mutant = { ...bounds, ...mutation };
    expect(() => {
      agreesWithSimulation(mutant);
      boundsTheOptimum(mutant);
    }).toThrow();
  });
});

describe('weightIoAgainstLowerBound', () => {
  const model = findModel('facebook/opt-175b');
  const workload = { promptTokens: 512, genTokens: 32 };
  const policy = { gpuBatchSize: 32, numGpuBatches: 8, weightBits: 16, kvCacheBits: 16 } as Policy;
  const shape = {
    numLayers: 96,
    ...workload,
    kvTokenBytes: 4 * model.hiddenSize,
    hiddenTokenBytes: 2 * model.hiddenSize,
  };
  // 175e9 parameters less vectors, in 16 bits, and room for exactly one block of 256 sequences.
  const matrices = 96 * 12 * 12288 ** 2 + (50272 + 2050) * 12288;
  const vectors = 96 * 13 * 12288 + 2 * 12288;
  const weightBytes = 2 * matrices + 4 * vectors;
  const exactFit = { gpu: 15e9, cpu: 200e9, disk: weightBytes + 256 * bounds.peakSequenceBytes(shape) - 215e9 };

  it('is the printed gap when the block fills the capacity', () => {
    const { ratio, weightLoads } = bounds.weightIoAgainstLowerBound(model, policy, workload, exactFit);
    expect(weightLoads).toBe(96 * 32);
    expect(ratio).toBeCloseTo(bounds.peakSequenceBytes(shape) / bounds.meanSequenceBytes(shape), 9);
  });

  it('never reports better than the bound, and counts the short last block', () => {
    const counted = bounds.weightIoAgainstLowerBound(model, policy, { ...workload, numSequences: 300 }, exactFit);
    expect(counted.weightLoads).toBe(2 * 96 * 32);
    expect(counted.ratio).toBeGreaterThanOrEqual(1);
    const alike = Array.from({ length: 300 }, () => workload);
    expect(bounds.weightIoAgainstLowerBound(model, policy, { ...workload, sequences: alike }, exactFit)).toEqual(
      counted,
    );
  });

  it('says when the weights alone do not fit', () => {
    const memory = { gpu: 15e9, cpu: 200e9, disk: 0 };
    expect(() => bounds.weightIoAgainstLowerBound(model, policy, workload, memory)).toThrow('too little on all tiers');
  });

  it('takes the longest sequence of each block, and the bytes of every one', () => {
    const sequences = [
      { promptTokens: 512, genTokens: 32 },
      { promptTokens: 64, genTokens: 8 },
    ];
    const single = { ...policy, gpuBatchSize: 1, numGpuBatches: 1 } as Policy;
    const io = bounds.weightIoAgainstLowerBound(model, single, { ...workload, sequences }, exactFit);
    expect(io.weightLoads).toBe(96 * 40);
    expect(io.leastWeightLoads).toBe(96 * 32);
  });
});

/** Advances rows in a random order that never runs into a corner: there is always room to end the one furthest on. */
function runAtRandom(host: Host, random: () => number): void {
  const { job, done } = host;
  const peak = bounds.peakSequenceBytes(job);
  const canStillEnd = (trial: readonly number[]) => {
    const bytes = trial.map((columns) => countedSequenceBytes(job, columns));
    const furthest = trial.reduce(
      (best, columns, row) => (columns < host.columns && columns > trial[best]! ? row : best),
      trial.findIndex((columns) => columns < host.columns),
    );
    const used = bytes.reduce((a, b) => a + b, 0);
    return used <= host.capacityBytes && (furthest < 0 || used - bytes[furthest]! + peak <= host.capacityBytes);
  };
  while (!host.finished) {
    const live = done.map((_, row) => row).filter((row) => done[row]! < host.columns);
    const furthest = live.reduce((best, row) => (done[row]! > done[best]! ? row : best));
    const layer = host.nextLayer(furthest);
    const trial = [...done];
    trial[furthest]!++;
    const chosen = [furthest];
    for (const row of live) {
      if (row === furthest || host.nextLayer(row) !== layer || random() % 3 === 0) continue;
      trial[row]!++;
      if (canStillEnd(trial)) chosen.push(row);
      else trial[row]!--;
    }
    host.load(layer, chosen);
  }
}
