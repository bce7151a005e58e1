import fc from 'fast-check';
import { expect, it } from 'vitest';
import { jobSequences, type Amount } from '../../src/workload/sequences.js';
import type { SequenceLength } from '../../src/workload/workload.js';
import { anyWorkload } from '../cost-model/arbitraries.js';

const amounts: readonly Amount[] = [
  ({ promptTokens }) => promptTokens,
  ({ promptTokens, genTokens }) => promptTokens * genTokens + 1,
];

it('stretches sum up to what their sequences do one by one, however often they are asked', () => {
  let listed = 0;
  fc.assert(
    fc.property(anyWorkload, fc.nat(40), fc.nat(40), (workload, a, b) => {
      const all = workload.sequences ?? new Array<SequenceLength>(workload.numSequences ?? 40).fill(workload);
      const [first, end] = [Math.min(a, b, all.length), Math.min(Math.max(a, b), all.length)];
      const stretch = all.slice(first, end);
      const sequences = jobSequences(workload);
      if (!sequences.alike && stretch.length > 1) listed += 1;
      for (const amount of [...amounts, ...amounts])
        expect(sequences.sum(amount, first, end)).toBe(stretch.reduce((sum, length) => sum + amount(length), 0));
      const ends = stretch.map(({ genTokens }) => genTokens).sort((x, y) => y - x);
      expect(sequences.mostGenTokens(first, end)).toBe(ends[0] ?? 0);
      const counts = sequences
        .genTokensDescending(first, end)
        .flatMap(({ genTokens, numSequences }) => new Array<number>(numSequences).fill(genTokens));
      expect(counts).toEqual(ends);
    }),
  );
  expect(listed).toBeGreaterThan(10);
});
