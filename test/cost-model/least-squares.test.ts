import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { minimiseSquares, type Limits, type Matrix } from '../../src/cost-model/least-squares.js';

/** Gaussian elimination without pivoting: the matrices are positive definite. */
function solve(matrix: Matrix, right: readonly number[]): number[] {
  const rows = matrix.map((row, r) => [...row, right[r]!]);
  rows.forEach((pivot, p) => {
    for (const row of rows.slice(p + 1)) {
      const factor = row[p]! / pivot[p]!;
      row.forEach((_, c) => (row[c]! -= factor * pivot[c]!));
    }
  });
  const x = right.map(() => 0);
  for (let r = rows.length - 1; r >= 0; r--) {
    const known = x.reduce((sum, value, c) => (c > r ? sum + rows[r]![c]! * value : sum), 0);
    x[r] = (rows[r]![right.length]! - known) / rows[r]![r]!;
  }
  return x;
}

const anywhere: Limits = { least: -Infinity, most: Infinity };
const fit = (residuals: (p: readonly number[]) => number[], start: number[], limits: Limits[]) =>
  minimiseSquares(residuals, start, limits, 200, solve);

describe('minimiseSquares', () => {
  it('walks the curved valley of Rosenbrock to its end', () => {
    const valley = ([x, y]: readonly number[]) => [1 - x!, 10 * (y! - x! ** 2)];
    const { point } = fit(valley, [-1.2, 1], [anywhere, anywhere]);
    expect(point[0]).toBeCloseTo(1, 3);
    expect(point[1]).toBeCloseTo(1, 3);
  });

  it('solves linear problems exactly, from anywhere', () => {
    const numbers = fc.double({ min: -5, max: 5, noNaN: true });
    fc.assert(
      fc.property(numbers, numbers, numbers, numbers, (a, b, startA, startB) => {
        const times = [0, 1, 2, 3];
        const line = ([p, q]: readonly number[]) => times.map((t) => p! + q! * t - (a + b * t));
        const { point } = fit(line, [startA, startB], [anywhere, anywhere]);
        expect(point[0]).toBeCloseTo(a, 3);
        expect(point[1]).toBeCloseTo(b, 3);
      }),
      { numRuns: 100, seed: 3 },
    );
  });

  it('finds the best point on a limit: the other unknowns make up for the one that is pressed against it', () => {
    // Without the limit x = 3, y = 1. At x = 2 the residuals are y - 2 and -2 y.
    const residuals = ([x, y]: readonly number[]) => [x! + y! - 4, 2 * (x! - y!) - 4];
    const { point } = fit(residuals, [0, 0], [{ least: -10, most: 2 }, anywhere]);
    expect(point[0]).toBe(2);
    expect(point[1]).toBeCloseTo(2 / 5, 4);
  });

  it('ends at once where nothing can move', () => {
    const { point, iterations } = fit(([x]) => [x! - 5], [0], [{ least: 0, most: 0 }]);
    expect(point).toEqual([0]);
    expect(iterations).toBeLessThan(30);
  });
});
