import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fitLink, type TransferPoint } from '../../src/profiler/fit-link.js';

const SIZES = [16_384, 65_536, 262_144, 1_048_576, 4_194_304];

function transfers(
  latencySeconds: number,
  bytesPerSecond: number,
  noise: (i: number) => number = () => 1,
): TransferPoint[] {
  return SIZES.map((bytes, i) => ({ bytes, seconds: (latencySeconds + bytes / bytesPerSecond) * noise(i) }));
}

/** Relative squared error of a line: what the fit is supposed to minimise. */
function loss(points: readonly TransferPoint[], latencySeconds: number, bytesPerSecond: number): number {
  return points.reduce((sum, p) => sum + ((latencySeconds + p.bytes / bytesPerSecond) / p.seconds - 1) ** 2, 0);
}

const latency = fc.double({ min: 1e-6, max: 1e-2, noNaN: true });
const rate = fc.double({ min: 1e6, max: 1e10, noNaN: true });

describe('fitLink', () => {
  it('finds the line that exact transfers lie on', () => {
    fc.assert(
      fc.property(latency, rate, (latencySeconds, bytesPerSecond) => {
        const fit = fitLink(transfers(latencySeconds, bytesPerSecond));
        const smallest = latencySeconds + SIZES[0]! / bytesPerSecond;
        expect(fit.latencySeconds + SIZES[0]! / fit.bytesPerSecond).toBeCloseTo(smallest, 9);
        const largest = latencySeconds + SIZES[4]! / bytesPerSecond;
        expect((fit.latencySeconds + SIZES[4]! / fit.bytesPerSecond) / largest).toBeCloseTo(1, 6);
      }),
    );
  });

  it('is never worse than any line nearby (slow twin: a grid)', () => {
    let inner = 0;
    fc.assert(
      fc.property(
        latency,
        rate,
        fc.array(fc.double({ min: 0.7, max: 1.4, noNaN: true }), { minLength: 5, maxLength: 5 }),
        (l, r, noise) => {
          const points = transfers(l, r, (i) => noise[i]!);
          const fit = fitLink(points);
          if (fit.latencySeconds === 0) return;
          inner++;
          const best = loss(points, fit.latencySeconds, fit.bytesPerSecond);
          for (const a of [0.9, 1, 1.1])
            for (const b of [0.9, 1, 1.1])
              expect(loss(points, fit.latencySeconds * a, fit.bytesPerSecond * b)).toBeGreaterThanOrEqual(best - 1e-9);
        },
      ),
      { numRuns: 300 },
    );
    expect(inner).toBeGreaterThan(100);
  });

  it('never gives a negative latency or rate, whatever the noise', () => {
    let clamped = 0;
    const times = fc.array(fc.double({ min: 1e-6, max: 1, noNaN: true }), { minLength: 5, maxLength: 5 });
    fc.assert(
      fc.property(times, (seconds) => {
        const fit = fitLink(SIZES.map((bytes, i) => ({ bytes, seconds: seconds[i]! })));
        if (fit.latencySeconds === 0) clamped++;
        expect(fit.latencySeconds).toBeGreaterThanOrEqual(0);
        expect(fit.bytesPerSecond).toBeGreaterThan(0);
        expect(Number.isFinite(fit.bytesPerSecond)).toBe(true);
      }),
    );
    expect(clamped).toBeGreaterThan(10);
  });

  it('takes a single size as a plain rate', () => {
    const fit = fitLink([{ bytes: 1000, seconds: 0.5 }]);
    expect(fit.latencySeconds).toBe(0);
    expect(fit.bytesPerSecond).toBeCloseTo(2000, 9);
  });

  it('refuses transfers that took no time', () => {
    expect(() => fitLink([{ bytes: 1000, seconds: 0 }])).toThrow('expected transfers that take time');
  });
});
