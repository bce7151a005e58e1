/**
 * Affine expressions in the placement variables: constant + sum of coefficient x variable. Every traffic, compute and
 * memory term is one, so that the estimate evaluates exactly what the linear program optimises.
 */
import type { Policy } from '../policy/policy.js';

/**
 * The nine fractions, and of the KV cache on cpu (on disk) the part attended by the CPU: `kvCpuAttended =
 * cpuAttentionFraction x kvCache.cpu`, `kvDiskCpuAttended = diskKvCpuAttentionFraction x kvCache.disk`.
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

/** `coefficients`: one for each of `PLACEMENT_VARIABLES`, in that order. */
export interface Affine {
  readonly constant: number;
  readonly coefficients: readonly number[];
}

/** Made of a fraction, so that engines keep it (and every copy) as plain doubles. */
const NONE: readonly number[] = PLACEMENT_VARIABLES.map(() => 0.5).fill(0);

/** A sum that grows in place. A search makes a million of them, all of one shape. */
export class AffineSum implements Affine {
  constant = 0;
  coefficients = NONE;

  add(factor: number, term: Affine): this {
    if (factor === 0) return this;
    this.constant += factor * term.constant;
    const from = term.coefficients;
    if (from === NONE) return this;
    if (this.coefficients === NONE) this.coefficients = NONE.slice();
    const to = this.coefficients as number[];
    for (let v = 0; v < from.length; v++) to[v]! += factor * from[v]!;
    return this;
  }

  addConstant(value: number): this {
    this.constant += value;
    return this;
  }
}

export const ZERO: Affine = new AffineSum();

export function constant(value: number): Affine {
  return value === 0 ? ZERO : new AffineSum().addConstant(value);
}

const VARIABLES = new Map(
  PLACEMENT_VARIABLES.map((name, position) => {
    const one = new AffineSum();
    one.coefficients = NONE.with(position, 1);
    return [name, one];
  }),
);

export function variable(name: PlacementVariable): Affine {
  return VARIABLES.get(name)!;
}

/** Where a variable's coefficient stands. */
export function positionOf(name: PlacementVariable): number {
  return PLACEMENT_VARIABLES.indexOf(name);
}

/** Sum of factor x term. */
export function weightedSum(terms: readonly (readonly [factor: number, term: Affine])[]): Affine {
  const sum = new AffineSum();
  for (const [factor, term] of terms) sum.add(factor, term);
  return sum;
}

export function sum(...terms: readonly Affine[]): Affine {
  const total = new AffineSum();
  for (const term of terms) total.add(1, term);
  return total;
}

export function scale(factor: number, term: Affine): Affine {
  if (factor === 0 || term === ZERO) return ZERO;
  return factor === 1 ? term : new AffineSum().add(factor, term);
}

export function minus(from: Affine, term: Affine): Affine {
  return new AffineSum().add(1, from).add(-1, term);
}

export function evaluate({ constant, coefficients }: Affine, point: PlacementPoint): number {
  if (coefficients === NONE) return constant;
  let value = constant;
  for (let v = 0; v < coefficients.length; v++) {
    const coefficient = coefficients[v]!;
    if (coefficient !== 0) value += coefficient * point[PLACEMENT_VARIABLES[v]!];
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

/**
 * The largest of expressions that are multiples of one another (constants too): it stays so wherever they are
 * evaluated.
 */
export function largest(terms: readonly Affine[]): Affine {
  return terms.reduce(
    (most, term) => (evaluate(term, EVERYWHERE_ONE) > evaluate(most, EVERYWHERE_ONE) ? term : most),
    ZERO,
  );
}

const EVERYWHERE_ONE = Object.fromEntries(PLACEMENT_VARIABLES.map((name) => [name, 1])) as unknown as PlacementPoint;
