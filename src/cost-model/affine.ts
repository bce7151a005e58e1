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
  PLACEMENT_VARIABLES.map((name) => [name, { constant: 0, coefficients: { [name]: 1 } }]),
) as unknown as Readonly<Record<PlacementVariable, Affine>>;

/** Sum of factor x term. */
export function weightedSum(terms: readonly (readonly [factor: number, term: Affine])[]): Affine {
  let total = 0;
  const coefficients: Partial<Record<PlacementVariable, number>> = {};
  for (const [factor, term] of terms) {
    if (factor === 0 || term === ZERO) continue;
    total += factor * term.constant;
    for (const name in term.coefficients) {
      const v = name as PlacementVariable;
      coefficients[v] = (coefficients[v] ?? 0) + factor * term.coefficients[v]!;
    }
  }
  return { constant: total, coefficients };
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
