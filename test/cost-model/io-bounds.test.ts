import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as bounds from '../../src/cost-model/io-bounds.js';
import { FlexplanError } from '../../src/errors.js';
import { agreesWithSimulation, boundsTheOptimum, jobs, kvOnly, type Formulas } from './io-checks.js';
import { Host, runDiagonal, runRowByRow, countedSequenceBytes } from './io-model.js';

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
