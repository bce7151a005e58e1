/** A linear program as plain data: minimise `objectiveConstant + sum of cost * value` under row and variable bounds. */

export interface LinearTerm {
  readonly variable: string;
  readonly coefficient: number;
}

/** `-Infinity <= lower <= value <= upper <= Infinity`. */
export interface LinearVariable {
  readonly name: string;
  readonly lower: number;
  readonly upper: number;
  readonly cost: number;
}

/**
 * `lower <= sum of coefficient * variable <= upper`. A variable that is named twice counts with the sum of its
 * coefficients.
 */
export interface LinearRow {
  readonly name: string;
  readonly terms: readonly LinearTerm[];
  readonly lower: number;
  readonly upper: number;
}

export interface LinearProgram {
  readonly name: string;
  readonly objectiveConstant: number;
  readonly variables: readonly LinearVariable[];
  readonly rows: readonly LinearRow[];
}

/** `rowDuals`: change of the objective per unit by which the row's binding bound grows. */
export interface OptimalSolution {
  readonly status: 'optimal';
  readonly objective: number;
  readonly values: Readonly<Record<string, number>>;
  readonly rowDuals: Readonly<Record<string, number>>;
}

export type LinearSolution =
  | OptimalSolution
  | { readonly status: 'infeasible' }
  | { readonly status: 'unbounded' }
  | { readonly status: 'failed'; readonly reason: string };

/** Anything that solves linear programs; the search does not care which. */
export interface LinearSolver {
  solve(program: LinearProgram): Promise<LinearSolution>;
}

/** Sparse columns of one row: position of the variable in `program.variables`, and its summed coefficient. */
export interface SparseRow {
  readonly columns: readonly number[];
  readonly coefficients: readonly number[];
}

/** Positions instead of names, repeated terms merged, zeros dropped. Throws `TypeError` on names that do not exist. */
export function sparseRows(program: LinearProgram): SparseRow[] {
  const columnOf = new Map(program.variables.map((variable, column) => [variable.name, column]));
  return program.rows.map((row) => {
    const merged = new Map<number, number>();
    for (const { variable, coefficient } of row.terms) {
      const column = columnOf.get(variable);
      if (column === undefined) throw new TypeError(`row "${row.name}" names "${variable}", which is no variable`);
      merged.set(column, (merged.get(column) ?? 0) + coefficient);
    }
    const kept = [...merged].filter(([, coefficient]) => coefficient !== 0);
    return { columns: kept.map(([column]) => column), coefficients: kept.map(([, coefficient]) => coefficient) };
  });
}

const MAX_NAME_LENGTH = 255;

function findNameFault(kind: string, names: readonly string[]): string | undefined {
  const seen = new Set<string>();
  for (const name of names) {
    if (name === '' || name.length > MAX_NAME_LENGTH) {
      return `expected a ${kind} name of 1 to ${MAX_NAME_LENGTH} characters, got ${name.length}`;
    }
    if (seen.has(name)) return `expected distinct ${kind} names, got "${name}" twice`;
    seen.add(name);
  }
  return undefined;
}

function findBoundFault(name: string, lower: number, upper: number): string | undefined {
  if (Number.isNaN(lower) || lower === Infinity)
    return `expected a lower bound of "${name}" below Infinity, got ${lower}`;
  if (Number.isNaN(upper) || upper === -Infinity)
    return `expected an upper bound of "${name}" above -Infinity, got ${upper}`;
  return undefined;
}

/**
 * What makes a program meaningless (as opposed to infeasible), or undefined. GLPK itself answers such input with a
 * wrong optimum or by aborting.
 */
export function findFault(program: LinearProgram): string | undefined {
  const nameFault =
    findNameFault(
      'variable',
      program.variables.map((variable) => variable.name),
    ) ??
    findNameFault(
      'row',
      program.rows.map((row) => row.name),
    );
  if (nameFault) return nameFault;
  if (!Number.isFinite(program.objectiveConstant)) {
    return `expected a finite objective constant, got ${program.objectiveConstant}`;
  }
  const known = new Set(program.variables.map((variable) => variable.name));
  for (const { name, lower, upper, cost } of program.variables) {
    if (!Number.isFinite(cost)) return `expected a finite cost of "${name}", got ${cost}`;
    const fault = findBoundFault(name, lower, upper);
    if (fault) return fault;
  }
  for (const { name, terms, lower, upper } of program.rows) {
    const fault = findBoundFault(name, lower, upper);
    if (fault) return fault;
    for (const { variable, coefficient } of terms) {
      if (!known.has(variable)) return `row "${name}" names "${variable}", which is no variable`;
      if (!Number.isFinite(coefficient)) {
        return `expected a finite coefficient of "${variable}" in row "${name}", got ${coefficient}`;
      }
    }
  }
  return undefined;
}
