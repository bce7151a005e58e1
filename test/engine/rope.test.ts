import { describe, expect, test } from 'vitest';
import { ropeInverseFrequencies } from '../../src/engine/rope.js';
import type { Positions } from '../../src/models/model-config.js';

/** Llama 3.1's rule by wavelengths, as its authors state it; the source counts turns instead. */
function byWavelength(headDim: number, theta: number, s: Extract<Positions, { kind: 'rope' }>['scaling']): number[] {
  const frequencies = Array.from({ length: headDim / 2 }, (_, i) => 1 / Math.pow(theta, (2 * i) / headDim));
  if (s?.kind !== 'llama3') throw new Error('expected llama3 scaling');
  const longest = s.originalMaxPositions / s.lowFreqFactor;
  const shortest = s.originalMaxPositions / s.highFreqFactor;
  return frequencies.map((f) => {
    const wavelength = (2 * Math.PI) / f;
    if (wavelength < shortest) return f;
    if (wavelength > longest) return f / s.factor;
    const smooth = (s.originalMaxPositions / wavelength - s.lowFreqFactor) / (s.highFreqFactor - s.lowFreqFactor);
    return ((1 - smooth) * f) / s.factor + smooth * f;
  });
}

function expectClose(actual: Float32Array, expected: readonly number[]): void {
  expect(actual.length).toBe(expected.length);
  // Float32 has 24 bits.
  expected.forEach((value, i) => expect(Math.abs(actual[i]! - value)).toBeLessThanOrEqual(value * 2 ** -23));
}

describe('inverse frequencies', () => {
  test('plain: theta^(-2i/headDim)', () => {
    const actual = ropeInverseFrequencies({ headDim: 8, positions: { kind: 'rope', theta: 10000 } });
    expectClose(actual, [1, 0.1, 0.01, 0.001]);
  });

  test('linear: all divided', () => {
    const scaling = { kind: 'linear', factor: 4 } as const;
    const actual = ropeInverseFrequencies({ headDim: 4, positions: { kind: 'rope', theta: 100, scaling } });
    expectClose(actual, [0.25, 0.025]);
  });

  test.each([
    ['the fixture, which has no wave in between', 16, 500_000, 32, [true, false, true]],
    ['Llama 3.1 8B', 128, 500_000, 8192, [true, true, true]],
  ])('llama3: %s', (_, headDim, theta, originalMaxPositions, regions) => {
    const scaling = { kind: 'llama3', factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions } as const;
    const actual = ropeInverseFrequencies({ headDim, positions: { kind: 'rope', theta, scaling } });
    expectClose(actual, byWavelength(headDim, theta, scaling));
    const plain = ropeInverseFrequencies({ headDim, positions: { kind: 'rope', theta } });
    const ratios = [...actual].map((f, i) => plain[i]! / f);
    const unscaled = ratios.some((r) => r === 1);
    const between = ratios.some((r) => r > 1.01 && r < 7.99);
    const scaled = ratios.some((r) => Math.abs(r - 8) < 1e-5);
    expect([unscaled, between, scaled]).toEqual(regions);
  });

  test('learned positions have none', () => {
    expect(ropeInverseFrequencies({ headDim: 8, positions: { kind: 'learned', offset: 2 } })).toHaveLength(0);
  });
});
