import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  constant,
  evaluate,
  minus,
  PLACEMENT_VARIABLES,
  placementPoint,
  scale,
  sum,
  variable,
  weightedSum,
  ZERO,
  type Affine,
  type PlacementPoint,
} from '../../src/cost-model/affine.js';
import { anyPolicy } from './arbitraries.js';

const anyNumber = fc.integer({ min: -1000, max: 1000 });
const anyAffine: fc.Arbitrary<Affine> = fc.record({
  constant: anyNumber,
  coefficients: fc.tuple(...PLACEMENT_VARIABLES.map(() => anyNumber)),
});
const anyPoint = fc.record(
  Object.fromEntries(PLACEMENT_VARIABLES.map((name) => [name, fc.integer({ min: 0, max: 8 }).map((n) => n / 8)])),
) as fc.Arbitrary<PlacementPoint>;

describe('affine expressions', () => {
  it('evaluate as what they are made of', () => {
    fc.assert(
      fc.property(anyAffine, anyAffine, anyNumber, anyNumber, anyPoint, (a, b, f, g, point) => {
        const [atA, atB] = [evaluate(a, point), evaluate(b, point)];
        expect(evaluate(sum(a, b, ZERO), point)).toBe(atA + atB);
        expect(evaluate(scale(f, a), point)).toBe(f * atA + 0);
        expect(evaluate(minus(a, b), point)).toBe(atA - atB);
        expect(
          evaluate(
            weightedSum([
              [f, a],
              [g, b],
            ]),
            point,
          ),
        ).toBe(f * atA + g * atB + 0);
        expect(evaluate(constant(f), point)).toBe(f);
      }),
    );
  });

  it('are variables, too', () => {
    fc.assert(
      fc.property(anyPoint, fc.constantFrom(...PLACEMENT_VARIABLES), (point, name) => {
        expect(evaluate(variable(name), point)).toBe(point[name]);
      }),
    );
  });

  it('take the attended part of a policy as a share of all', () => {
    fc.assert(
      fc.property(anyPolicy, (policy) => {
        const point = placementPoint(policy);
        expect(point.kvCpuAttended).toBe(policy.placement.kvCache.cpu * policy.cpuAttentionFraction);
        expect(point.kvDiskCpuAttended).toBe(policy.placement.kvCache.disk * (policy.diskKvCpuAttentionFraction ?? 0));
      }),
    );
  });
});
