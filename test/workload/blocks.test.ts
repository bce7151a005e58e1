import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  jobBlocks,
  reservedTokens,
  totalGenTokens,
  workloadFromNumbers,
  workloadFromSequences,
} from '../../src/workload/blocks.js';
import type { SequenceLength } from '../../src/workload/workload.js';
import { anyWorkload } from '../cost-model/arbitraries.js';

describe('workloads', () => {
  it('keep the largest lengths of a file', () => {
    const sequences = [
      { promptTokens: 3, genTokens: 9 },
      { promptTokens: 7, genTokens: 2 },
    ];
    expect(workloadFromSequences(sequences)).toEqual({ promptTokens: 7, genTokens: 9, numSequences: 2, sequences });
  });

  it.each([
    [() => workloadFromNumbers(0, 1), 'promptTokens to be a whole number of at least 1, got 0'],
    [() => workloadFromNumbers(4, 1.5), 'genTokens to be a whole number of at least 1, got 1.5'],
    [() => workloadFromNumbers(4, 1, -3), 'numSequences to be a whole number of at least 1, got -3'],
    [() => workloadFromSequences([]), 'at least one sequence in the workload, got none'],
    [() => workloadFromSequences([{ promptTokens: NaN, genTokens: 1 }]), 'promptTokens to be a whole number'],
  ])('refuse %#', (make, message) => {
    expect(make).toThrow(message);
  });

  it('reserve no KV row for the last generated token', () => {
    expect(reservedTokens({ promptTokens: 10, genTokens: 1 })).toBe(10);
    expect(reservedTokens({ promptTokens: 10, genTokens: 5 })).toBe(14);
  });
});

describe('jobBlocks', () => {
  it('is one full block when the number of sequences is open', () => {
    const [block, ...rest] = jobBlocks(workloadFromNumbers(4, 2), 6);
    expect(rest).toEqual([]);
    expect(block).toEqual({ count: 1, first: 0, end: 6 });
  });

  it('is full blocks and what is left', () => {
    const blocks = jobBlocks(workloadFromNumbers(4, 2, 20), 6);
    expect(blocks.map(({ count, first, end }) => [count, end - first])).toEqual([
      [3, 6],
      [1, 2],
    ]);
  });

  it('holds every sequence once, in order, and no block too many', () => {
    fc.assert(
      fc.property(anyWorkload, fc.integer({ min: 1, max: 9 }), (workload, blockSize) => {
        const blocks = jobBlocks(workload, blockSize);
        const numSequences = workload.numSequences ?? blockSize;
        const sizes = blocks.flatMap(({ count, first, end }) => new Array<number>(count).fill(end - first));
        expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(numSequences);
        expect(sizes.length).toBe(Math.ceil(numSequences / blockSize));
        if (workload.sequences) {
          expect(blocks.map(({ first }) => first)).toEqual(sizes.map((_, b) => b * blockSize));
          expect(blocks.every(({ count }) => count === 1)).toBe(true);
        }
        const all = workload.sequences ?? new Array<SequenceLength>(numSequences).fill(workload);
        expect(totalGenTokens(workload, blocks)).toBe(all.reduce((sum, { genTokens }) => sum + genTokens, 0));
      }),
    );
  });
});
