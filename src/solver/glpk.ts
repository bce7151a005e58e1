/**
 * The only file that knows GLPK. Its manners, and what is done about them here: meaningless numbers give a wrong
 * optimum or abort the WebAssembly module, so they are refused before; with the presolver on, infeasible and unbounded
 * both come back as "undefined", so such a program is solved again without it; absolute tolerances make badly scaled
 * programs fail, so rows and columns are equilibrated; and what comes back is checked.
 */
import type { GLPK as NodeGlpk, LP, Options, Result } from 'glpk.js/node';
import { certify } from './certificate.js';
import { equilibrate, type Scaling } from './equilibrate.js';
import {
  findFault,
  sparseRows,
  type LinearProgram,
  type LinearSolution,
  type LinearSolver,
  type SparseRow,
} from './linear-program.js';

/** What both entries of glpk.js share: the one for Node answers at once, the one for browsers from a web worker. */
export type GlpkInstance = Omit<NodeGlpk, 'solve' | 'write'> & {
  solve(program: LP, options: Options): Result | Promise<Result>;
};
export type GlpkLoader = () => Promise<{ readonly default: () => Promise<GlpkInstance> }>;

/** `imports` of package.json: the entry for Node, or, in a bundle for browsers, the one for them. */
const loadEntry: GlpkLoader = () => import('#glpk');

const columnName = (column: number): string => `x${column}`;
const rowName = (row: number): string => `r${row}`;

function boundsOf(glpk: GlpkInstance, lower: number, upper: number): { type: number; lb: number; ub: number } {
  const hasLower = lower !== -Infinity;
  const hasUpper = upper !== Infinity;
  const bounds = { lb: hasLower ? lower : 0, ub: hasUpper ? upper : 0 };
  if (hasLower && hasUpper) return { type: lower === upper ? glpk.GLP_FX : glpk.GLP_DB, ...bounds };
  if (hasLower) return { type: glpk.GLP_LO, ...bounds };
  return { type: hasUpper ? glpk.GLP_UP : glpk.GLP_FR, ...bounds };
}

function toGlpk(glpk: GlpkInstance, program: LinearProgram, rows: readonly SparseRow[], scaling: Scaling): LP {
  const { rowFactors, columnFactors, objectiveFactor } = scaling;
  return {
    name: 'program',
    objective: {
      direction: glpk.GLP_MIN,
      name: 'objective',
      vars: program.variables.map(({ cost }, column) => ({
        name: columnName(column),
        coef: cost * columnFactors[column]! * objectiveFactor,
      })),
    },
    subjectTo: rows.map(({ columns, coefficients }, row) => ({
      name: rowName(row),
      vars: columns.map((column, i) => ({
        name: columnName(column),
        coef: coefficients[i]! * rowFactors[row]! * columnFactors[column]!,
      })),
      bnds: boundsOf(glpk, program.rows[row]!.lower * rowFactors[row]!, program.rows[row]!.upper * rowFactors[row]!),
    })),
    bounds: program.variables.map(({ lower, upper }, column) => ({
      name: columnName(column),
      ...boundsOf(glpk, lower / columnFactors[column]!, upper / columnFactors[column]!),
    })),
  };
}

function toSolution(
  program: LinearProgram,
  rows: readonly SparseRow[],
  scaling: Scaling,
  { vars, dual }: Result['result'],
): LinearSolution {
  const values: Record<string, number> = {};
  let objective = program.objectiveConstant;
  program.variables.forEach(({ name, lower, upper, cost }, column) => {
    const value = (vars[columnName(column)] ?? NaN) * scaling.columnFactors[column]!;
    values[name] = Math.min(upper, Math.max(lower, value));
    objective += cost * values[name];
  });
  const rowDuals: Record<string, number> = {};
  program.rows.forEach(({ name }, row) => {
    rowDuals[name] = ((dual?.[rowName(row)] ?? 0) * scaling.rowFactors[row]!) / scaling.objectiveFactor;
  });
  if (!Number.isFinite(objective)) return { status: 'failed', reason: `GLPK returned the objective ${objective}` };
  const solution = { status: 'optimal', objective, values, rowDuals } as const;
  const { valid, ...errors } = certify(program, solution, rows, scaling);
  return valid
    ? solution
    : { status: 'failed', reason: `expected a provable optimum from GLPK, got one with ${JSON.stringify(errors)}` };
}

class GlpkSolver implements LinearSolver {
  #instance: GlpkInstance | undefined;

  constructor(private readonly load: GlpkLoader) {}

  async solve(program: LinearProgram): Promise<LinearSolution> {
    const fault = findFault(program);
    if (fault) return { status: 'failed', reason: fault };
    if ([...program.variables, ...program.rows].some(({ lower, upper }) => lower > upper))
      return { status: 'infeasible' };
    const rows = sparseRows(program);
    const scaling = equilibrate(program, rows);
    try {
      const glpk = (this.#instance ??= await (await this.load()).default());
      const scaled = toGlpk(glpk, program, rows, scaling);
      const attempt = async (presol: boolean): Promise<LinearSolution> => {
        const { result } = await glpk.solve(scaled, { msglev: glpk.GLP_MSG_OFF, presol });
        if (result.status === glpk.GLP_OPT) return toSolution(program, rows, scaling, result);
        if (result.status === glpk.GLP_NOFEAS) return { status: 'infeasible' };
        if (result.status === glpk.GLP_UNBND) return { status: 'unbounded' };
        return { status: 'failed', reason: `GLPK ended with status ${result.status}` };
      };
      const presolved = await attempt(true);
      return presolved.status === 'failed' ? await attempt(false) : presolved;
    } catch (error) {
      // An aborted WebAssembly module is not to be trusted again.
      this.#instance = undefined;
      return { status: 'failed', reason: `GLPK gave up: ${error instanceof Error ? error.message : String(error)}` };
    }
  }
}

/** A GLPK solver. `load` imports an entry of glpk.js. */
export function createGlpkSolver(load: GlpkLoader = loadEntry): LinearSolver {
  return new GlpkSolver(load);
}
