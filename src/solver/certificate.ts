/**
 * Proof that a solution is optimal, worked out from the program alone and not from what the solver says of itself: the
 * point obeys every bound, the duals obey theirs, and both objectives meet (weak duality then leaves no better point).
 * Errors are relative to the terms they come from, and to 1 in the balanced units of `equilibrate` where those vanish.
 */
import { equilibrate, type Scaling } from './equilibrate.js';
import { sparseRows, type LinearProgram, type OptimalSolution, type SparseRow } from './linear-program.js';

export interface Certificate {
  /** Largest violation of a bound of a row or a variable. */
  readonly primalViolation: number;
  /** Largest reduced cost that points to a bound which does not exist. */
  readonly dualViolation: number;
  /** |primal objective - dual objective|. */
  readonly dualityGap: number;
  readonly dualObjective: number;
  readonly valid: boolean;
}

/** GLPK stops at 1e-7 of its own scaled rows, so a tighter proof is not to be had. */
const CERTIFICATE_TOLERANCE = 1e-6;

function violation(value: number, lower: number, upper: number, size: number): number {
  if (Number.isNaN(value)) return Infinity;
  const excess = Math.max(lower - value, value - upper, 0);
  return excess / Math.max(size, Math.abs(value < lower ? lower : upper));
}

/** Largest relative violation of the bounds of rows and variables at `values`. */
function primalViolation(
  program: LinearProgram,
  values: Readonly<Record<string, number>>,
  rows: readonly SparseRow[],
  scaling: Scaling,
): number {
  const point = program.variables.map(({ name }) => values[name] ?? NaN);
  let worst = 0;
  program.variables.forEach(({ lower, upper }, column) => {
    worst = Math.max(worst, violation(point[column]!, lower, upper, scaling.columnFactors[column]!));
  });
  rows.forEach(({ columns, coefficients }, row) => {
    let sum = 0;
    let size = 1 / scaling.rowFactors[row]!;
    columns.forEach((column, i) => {
      const term = coefficients[i]! * point[column]!;
      sum += term;
      size = Math.max(size, Math.abs(term));
    });
    worst = Math.max(worst, violation(sum, program.rows[row]!.lower, program.rows[row]!.upper, size));
  });
  return worst;
}

interface DualSide {
  objective: number;
  /** Largest term of the dual objective. */
  size: number;
  violation: number;
}

/** Adds multiplier * the bound it prices: a positive one prices the lower bound, a negative one the upper. */
function addMultiplier(side: DualSide, multiplier: number, lower: number, upper: number, size: number): void {
  if (multiplier === 0) return;
  const bound = multiplier > 0 ? lower : upper;
  if (Number.isFinite(bound)) {
    side.objective += multiplier * bound;
    side.size = Math.max(side.size, Math.abs(multiplier * bound));
  } else {
    side.violation = Math.max(side.violation, Math.abs(multiplier) / size);
  }
}

/** A multiplier on a bound that does not exist proves nothing: without it the proof is weaker, never wrong. */
function usable(dual: number, lower: number, upper: number): number {
  return Number.isFinite(dual > 0 ? lower : upper) || Number.isNaN(dual) ? dual : 0;
}

function dualSide(
  program: LinearProgram,
  rows: readonly SparseRow[],
  scaling: Scaling,
  duals: readonly number[],
): DualSide {
  const side: DualSide = { objective: 0, size: 1 / scaling.objectiveFactor, violation: 0 };
  const reducedCosts = Float64Array.from(program.variables, ({ cost }) => cost);
  const sizes = scaling.columnFactors.map((factor) => 1 / (scaling.objectiveFactor * factor));
  rows.forEach(({ columns, coefficients }, row) => {
    const { lower, upper } = program.rows[row]!;
    const dual = usable(duals[row]!, lower, upper);
    columns.forEach((column, i) => {
      reducedCosts[column]! -= dual * coefficients[i]!;
      sizes[column] = Math.max(sizes[column]!, Math.abs(dual * coefficients[i]!));
    });
    addMultiplier(side, dual, lower, upper, Infinity);
  });
  program.variables.forEach(({ lower, upper }, column) => {
    addMultiplier(side, reducedCosts[column]!, lower, upper, sizes[column]!);
  });
  return side;
}

/** Checks `solution` against `program`. Nothing of the solver's own account is trusted. */
export function certify(
  program: LinearProgram,
  solution: OptimalSolution,
  rows: readonly SparseRow[] = sparseRows(program),
  scaling: Scaling = equilibrate(program, rows),
): Certificate {
  const duals = program.rows.map(({ name }) => solution.rowDuals[name] ?? NaN);
  const dual = dualSide(program, rows, scaling, duals);
  let primal = 0;
  let size = dual.size;
  for (const { name, cost } of program.variables) {
    const term = cost * (solution.values[name] ?? NaN);
    primal += term;
    size = Math.max(size, Math.abs(term));
  }
  const measured = {
    primalViolation: primalViolation(program, solution.values, rows, scaling),
    dualViolation: dual.violation,
    dualityGap: Math.abs(primal - dual.objective) / size,
    dualObjective: dual.objective + program.objectiveConstant,
  };
  const valid = [measured.primalViolation, measured.dualViolation, measured.dualityGap].every(
    (error) => error <= CERTIFICATE_TOLERANCE,
  );
  return { ...measured, valid };
}
