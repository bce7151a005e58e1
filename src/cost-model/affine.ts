/**
 * Affine expressions in the placement variables: constant + sum of coefficient x variable. Every traffic, compute and
 * memory term is one, so that the estimate evaluates exactly what the linear program optimises.
 */
import type { Policy } from '../policy/policy.js';

/**
 * The nine fractions, and of the KV cache on cpu (on disk) the part attended by the CPU:
 * `kvCpuAttended = cpuAttentionFraction x kvCache.cpu`, `kvDiskCpuAttended = diskKvCpuAttentionFraction x kvCache.disk`.
 */
export const PLACEMENT_VARIABLES = [
  'weights.gpu',
  'weights.cpu',
  'weights.disk',
  'kvCache.gpu',
  'kvCache.cpu',
  'kvCache.disk',
  'activations.gpu',
  'activations.cpu',
  'activations.disk',
  'kvCpuAttended',
  'kvDiskCpuAttended',
] as const;
export type PlacementVariable = (typeof PLACEMENT_VARIABLES)[number];
export type PlacementPoint = Readonly<Record<PlacementVariable, number>>;

/** Variables that are absent have coefficient 0. */
export interface Affine {
  readonly constant: number;
  readonly coefficients: Readonly<Partial<Record<PlacementVariable, number>>>;
}

export const ZERO: Affine = { constant: 0, coefficients: {} };

export function constant(value: number): Affine {
  return value === 0 ? ZERO : { constant: value, coefficients: {} };
}

export function variable(name: PlacementVariable): Affine {
  return VARIABLES[name];
}

const VARIABLES = Object.fromEntries(
  PLACEMENT_VARIABLES.map((name) => {
    const one = emptySum();
    one.coefficients[name] = 1;
    return [name, one];
  }),
) as unknown as Readonly<Record<PlacementVariable, Affine>>;

/** Sum of factor x term. A search makes millions: named fields in one order keep all results in one hidden class. */
export function weightedSum(terms: readonly (readonly [factor: number, term: Affine])[]): Affine {
  if (terms.length === 0) return ZERO;
  const sum = emptySum();
  const { coefficients } = sum;
  for (const [factor, term] of terms) {
    if (factor === 0 || term === ZERO) continue;
    sum.constant += factor * term.constant;
    const from = term.coefficients;
    coefficients['weights.gpu'] += factor * (from['weights.gpu'] ?? 0);
    coefficients['weights.cpu'] += factor * (from['weights.cpu'] ?? 0);
    coefficients['weights.disk'] += factor * (from['weights.disk'] ?? 0);
    coefficients['kvCache.gpu'] += factor * (from['kvCache.gpu'] ?? 0);
    coefficients['kvCache.cpu'] += factor * (from['kvCache.cpu'] ?? 0);
    coefficients['kvCache.disk'] += factor * (from['kvCache.disk'] ?? 0);
    coefficients['activations.gpu'] += factor * (from['activations.gpu'] ?? 0);
    coefficients['activations.cpu'] += factor * (from['activations.cpu'] ?? 0);
    coefficients['activations.disk'] += factor * (from['activations.disk'] ?? 0);
    coefficients.kvCpuAttended += factor * (from.kvCpuAttended ?? 0);
    coefficients.kvDiskCpuAttended += factor * (from.kvDiskCpuAttended ?? 0);
  }
  return sum;
}

function emptySum(): { constant: number; coefficients: Record<PlacementVariable, number> } {
  return {
    constant: 0,
    coefficients: {
      'weights.gpu': 0,
      'weights.cpu': 0,
      'weights.disk': 0,
      'kvCache.gpu': 0,
      'kvCache.cpu': 0,
      'kvCache.disk': 0,
      'activations.gpu': 0,
      'activations.cpu': 0,
      'activations.disk': 0,
      kvCpuAttended: 0,
      kvDiskCpuAttended: 0,
    },
  };
}

export function sum(...terms: readonly Affine[]): Affine {
  const nonZero = terms.filter((term) => term !== ZERO);
  if (nonZero.length < 2) return nonZero[0] ?? ZERO;
  return weightedSum(nonZero.map((term) => [1, term]));
}

export function scale(factor: number, term: Affine): Affine {
  if (factor === 0 || term === ZERO) return ZERO;
  return factor === 1 ? term : weightedSum([[factor, term]]);
}

export function minus(from: Affine, term: Affine): Affine {
  return weightedSum([
    [1, from],
    [-1, term],
  ]);
}

export function evaluate(term: Affine, point: PlacementPoint): number {
  let value = term.constant;
  for (const name in term.coefficients) {
    const v = name as PlacementVariable;
    value += term.coefficients[v]! * point[v];
  }
  return value;
}

/** Where a policy lies in the space of the placement variables. */
export function placementPoint(policy: Policy): PlacementPoint {
  const { weights, kvCache, activations } = policy.placement;
  return {
    'weights.gpu': weights.gpu,
    'weights.cpu': weights.cpu,
    'weights.disk': weights.disk,
    'kvCache.gpu': kvCache.gpu,
    'kvCache.cpu': kvCache.cpu,
    'kvCache.disk': kvCache.disk,
    'activations.gpu': activations.gpu,
    'activations.cpu': activations.cpu,
    'activations.disk': activations.disk,
    kvCpuAttended: kvCache.cpu * policy.cpuAttentionFraction,
    kvDiskCpuAttended: kvCache.disk * (policy.diskKvCpuAttentionFraction ?? 0),
  };
}
