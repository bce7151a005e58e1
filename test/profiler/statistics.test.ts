import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { measured, median, percentile, spread } from '../../src/profiler/statistics.js';

const samples = fc.array(fc.double({ min: 1e-9, max: 1e3, noNaN: true }), { minLength: 1, maxLength: 60 });

describe('statistics', () => {
  it('takes the middle, between two when the count is even', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(percentile([10, 20, 30, 40, 50], 0.1)).toBeCloseTo(14, 12);
    expect(percentile([7], 0.9)).toBe(7);
  });

  it('is half the distance of the 10th and 90th percentile over the median', () => {
    expect(spread([10, 20, 30, 40, 50])).toBeCloseTo((46 - 14) / 2 / 30, 12);
    expect(spread([5, 5, 5])).toBe(0);
  });

  it('is not moved by one slow repetition', () => {
    expect(median([1, 1, 1, 1, 1, 1, 900])).toBe(1);
  });

  it('does not depend on the order, leaves its input alone, and scales', () => {
    fc.assert(
      fc.property(samples, fc.double({ min: 0.1, max: 10, noNaN: true }), (values, factor) => {
        const before = [...values];
        expect(median([...values].reverse())).toBe(median(values));
        expect(values).toEqual(before);
        expect(median(values.map((v) => v * factor))).toBeCloseTo(median(values) * factor, 6);
        expect(spread(values)).toBeGreaterThanOrEqual(0);
      }),
    );
  });

  it('records value, source and spread', () => {
    expect(measured(1.23456789, [1, 1, 1], 'why')).toEqual({
      value: 1.23457,
      source: 'measured',
      spread: 0,
      note: 'why',
    });
  });
});
