/**
 * Fits a hardware profile's constants to measured runs, through the cost model itself: least squares on
 * ln(predicted / observed). All unknowns are rates or times of the machine; no run has one of its own.
 */
import { FlexplanError } from '../errors.js';
import type { HardwareProfile, Quantity } from '../hardware/hardware-profile.js';
import { minimiseSquares, type Matrix } from './least-squares.js';
import { logError, predictObservation, type Observation } from './observations.js';

/**
 * A constant of a profile that the fit may change: the path of a quantity, its physical limits, how far it may be off.
 */
export interface FreeConstant {
  readonly path: string;
  readonly least: number;
  readonly most: number;
  /** Standard deviation of ln(constant) that is thought possible before any observation. */
  readonly doubt: number;
}

export interface CalibrationOptions {
  /**
   * Scatter of ln(predicted / observed) to be expected of a right profile: weighs the runs against the starting values.
   */
  readonly expectedScatter: number;
  readonly maxIterations: number;
}

const CALIBRATION_DEFAULTS: Required<CalibrationOptions> = { expectedScatter: 0.05, maxIterations: 60 };

export interface FittedRow {
  readonly name: string;
  readonly observed: number;
  readonly predicted: number;
  /** predicted / observed - 1, observed being the nearest value that has the digits given. */
  readonly error: number;
}

export interface Calibration {
  /** The starting profile with the free constants fitted; each carries the spread that the runs leave open. */
  readonly hardware: HardwareProfile;
  readonly rows: readonly FittedRow[];
  readonly iterations: number;
}

/** Half the distance between the 10th and the 90th percentile of a normal distribution, in standard deviations. */
const SPREAD_OF_DEVIATION = 1.2816;

/** Deterministic. Throws `bad-input` for a path that names no quantity of the profile. */
export async function calibrate(
  start: HardwareProfile,
  observations: readonly Observation[],
  free: readonly FreeConstant[],
  options: Partial<CalibrationOptions> = {},
): Promise<Calibration> {
  const { expectedScatter, maxIterations } = { ...CALIBRATION_DEFAULTS, ...options };
  const { inv, lusolve } = await import('mathjs');
  const origin = free.map(({ path }) => Math.log(quantityAt(start, path).value));
  const profileAt = (point: readonly number[]) => withConstants(start, free, point);
  const residualsAt = (point: readonly number[]) => {
    const hardware = profileAt(point);
    const misses = observations.map((o) => logError(predictObservation(hardware, o), o) / expectedScatter);
    const pulls = free.map(({ doubt }, c) => (point[c]! - origin[c]!) / doubt);
    return [...misses, ...pulls];
  };
  const solve = (matrix: Matrix, right: readonly number[]) =>
    (lusolve(matrix, [...right]) as Matrix).map(([value]) => value!);
  const limits = free.map(({ least, most }) => ({ least: Math.log(least), most: Math.log(most) }));
  const { point, normal, iterations } = minimiseSquares(residualsAt, origin, limits, maxIterations, solve);
  const covariance = inv<Matrix>(normal);
  const deviations = covariance.map((row, c) => Math.sqrt(row[c]!));
  const hardware = withFittedSpread(profileAt(point), free, deviations);
  return { hardware, rows: observations.map((o) => comparedRow(hardware, o)), iterations };
}

/** The cost model against one observation. */
export function comparedRow(hardware: HardwareProfile, observation: Observation): FittedRow {
  const predicted = predictObservation(hardware, observation);
  const error = Math.expm1(logError(predicted, observation));
  return { name: observation.name, observed: observation.value, predicted, error };
}

/** The quantity at a path such as `compute.gpu.matmul.0.flopsPerSecond`. */
export function quantityAt(profile: HardwareProfile, path: string): Quantity {
  const found = path
    .split('.')
    .reduce<unknown>((node, key) => (node as Record<string, unknown> | undefined)?.[key], profile);
  if (typeof (found as Quantity | undefined)?.value === 'number') return found as Quantity;
  throw new FlexplanError('bad-input', `expected the path of a quantity in the hardware profile, got "${path}"`);
}

/** A copy of the profile with the quantity at a path replaced. */
function withQuantity(profile: HardwareProfile, path: string, quantity: Quantity): HardwareProfile {
  const copy = structuredClone(profile) as unknown as Record<string, unknown>;
  const keys = path.split('.');
  const parent = keys.slice(0, -1).reduce<Record<string, unknown>>((node, key) => node[key] as typeof node, copy);
  parent[keys[keys.length - 1]!] = quantity;
  return copy as unknown as HardwareProfile;
}

function withConstants(
  start: HardwareProfile,
  free: readonly FreeConstant[],
  logValues: readonly number[],
): HardwareProfile {
  return free.reduce((profile, { path }, c) => {
    const { note } = quantityAt(start, path);
    const value = Math.exp(logValues[c]!);
    return withQuantity(profile, path, { value, source: 'fitted', ...(note === undefined ? {} : { note }) });
  }, start);
}

function withFittedSpread(
  profile: HardwareProfile,
  free: readonly FreeConstant[],
  deviations: readonly number[],
): HardwareProfile {
  return free.reduce((fitted, { path }, c) => {
    const { value, note } = quantityAt(fitted, path);
    const spread = Number((SPREAD_OF_DEVIATION * deviations[c]!).toPrecision(2));
    const quantity = { value: Number(value.toPrecision(4)), source: 'fitted' as const, spread };
    return withQuantity(fitted, path, note === undefined ? quantity : { ...quantity, note });
  }, profile);
}
