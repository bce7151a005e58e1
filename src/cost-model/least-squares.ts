/** Damped least squares (Levenberg-Marquardt) between limits. */

export type Matrix = number[][];
export type Residuals = (point: readonly number[]) => readonly number[];

export interface Limits {
  readonly least: number;
  readonly most: number;
}

/** x of matrix x = right. The matrix is symmetric and positive definite. */
export type LinearSolve = (matrix: Matrix, right: readonly number[]) => readonly number[];

export interface LeastSquares {
  readonly point: readonly number[];
  /** J'J at the point: the inverse is the covariance of the unknowns if residuals scatter by 1. */
  readonly normal: Matrix;
  readonly iterations: number;
}

const DIFFERENCE_STEP = 1e-4;
const START_DAMPING = 1e-2;
const MOST_DAMPING = 1e8;
const EASED = 1 / 3;
const STIFFENED = 4;
const LEAST_IMPROVEMENT = 1e-6;

/**
 * A local minimum of the sum of squared residuals. Each iteration solves (J'J + damping diag J'J) step = J'r for the
 * unknowns that are not pressed against a limit; a step that does not improve is tried again shorter.
 */
export function minimiseSquares(
  residualsAt: Residuals,
  start: readonly number[],
  limits: readonly Limits[],
  maxIterations: number,
  solve: LinearSolve,
): LeastSquares {
  let point = start.map((value, c) => clamped(value, limits[c]!));
  let residuals = residualsAt(point);
  let slopes = jacobian(residualsAt, point, residuals);
  let damping = START_DAMPING;
  let iterations = 0;
  while (iterations < maxIterations && damping < MOST_DAMPING) {
    iterations++;
    const step = dampedStep(slopes, residuals, damping, point, limits, solve);
    const next = point.map((value, c) => clamped(value - step[c]!, limits[c]!));
    const nextResiduals = residualsAt(next);
    const improvement = 1 - squaredNorm(nextResiduals) / squaredNorm(residuals);
    damping *= improvement > 0 ? EASED : STIFFENED;
    if (!(improvement > 0)) continue;
    point = next;
    residuals = nextResiduals;
    slopes = jacobian(residualsAt, point, residuals);
    if (improvement < LEAST_IMPROVEMENT) break;
  }
  return { point, normal: normalMatrix(slopes), iterations };
}

function dampedStep(
  slopes: Matrix,
  residuals: readonly number[],
  damping: number,
  point: readonly number[],
  limits: readonly Limits[],
  solve: LinearSolve,
): number[] {
  const gradient = point.map((_, c) => slopes.reduce((sum, row, r) => sum + row[c]! * residuals[r]!, 0));
  const moving = point.flatMap((value, c) => (isPressed(value, gradient[c]!, limits[c]!) ? [] : [c]));
  const step = point.map(() => 0);
  if (moving.length === 0) return step;
  const normal = normalMatrix(slopes.map((row) => moving.map((c) => row[c]!)));
  normal.forEach((row, c) => (row[c]! *= 1 + damping));
  const solved = solve(
    normal,
    moving.map((c) => gradient[c]!),
  );
  moving.forEach((c, i) => (step[c] = solved[i]!));
  return step;
}

/** At a limit, and better only beyond it. */
function isPressed(value: number, slope: number, { least, most }: Limits): boolean {
  return (value <= least && slope > 0) || (value >= most && slope < 0);
}

function clamped(value: number, { least, most }: Limits): number {
  return Math.min(Math.max(value, least), most);
}

/** Rows: residuals; columns: unknowns. */
function jacobian(residualsAt: Residuals, point: readonly number[], residuals: readonly number[]): Matrix {
  const columns = point.map((_, c) =>
    residualsAt(point.map((value, i) => (i === c ? value + DIFFERENCE_STEP : value))).map(
      (shifted, r) => (shifted - residuals[r]!) / DIFFERENCE_STEP,
    ),
  );
  return residuals.map((_, r) => columns.map((column) => column[r]!));
}

function normalMatrix(slopes: Matrix): Matrix {
  const size = slopes[0]?.length ?? 0;
  return Array.from({ length: size }, (_, a) =>
    Array.from({ length: size }, (_, b) => slopes.reduce((sum, row) => sum + row[a]! * row[b]!, 0)),
  );
}

function squaredNorm(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value * value, 0);
}
