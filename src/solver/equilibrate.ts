/**
 * Row and column factors that bring the numbers of a program near 1: bytes and seconds differ by 10^12, and a simplex
 * with absolute tolerances does not survive that. Factors are powers of two, so scaling is exact. The bounds take part
 * as one more column, whose factor is the unit of all values: GLPK's presolver drops rows with tiny bounds as
 * redundant.
 */
import type { LinearProgram, SparseRow } from './linear-program.js';

export interface Scaling {
  /** `scaled row = factor * row`. */
  readonly rowFactors: Float64Array;
  /** `value = factor * scaled value`. */
  readonly columnFactors: Float64Array;
  readonly objectiveFactor: number;
}

const PASSES = 8;

/** Power of two nearest to 1 / sqrt(smallest * largest). */
function balancingFactor(smallest: number, largest: number): number {
  return largest === 0 ? 1 : 2 ** -Math.round((Math.log2(smallest) + Math.log2(largest)) / 2);
}

/** Rows, bounds of variables and costs (last), each with its bounds as an entry of one more column. */
function wholeMatrix(program: LinearProgram, rows: readonly SparseRow[]): SparseRow[] {
  const boundsColumn = program.variables.length;
  const row = (
    columns: readonly number[],
    coefficients: readonly number[],
    lower: number,
    upper: number,
  ): SparseRow => {
    const bound = Math.max(...[lower, upper].map((value) => (Number.isFinite(value) ? Math.abs(value) : 0)));
    return bound === 0
      ? { columns, coefficients }
      : { columns: [...columns, boundsColumn], coefficients: [...coefficients, bound] };
  };
  const priced = program.variables.flatMap(({ cost }, column) => (cost === 0 ? [] : [{ column, cost }]));
  return [
    ...rows.map(({ columns, coefficients }, i) =>
      row(columns, coefficients, program.rows[i]!.lower, program.rows[i]!.upper),
    ),
    ...program.variables.map(({ lower, upper }, column) => row([column], [1], lower, upper)),
    { columns: priced.map(({ column }) => column), coefficients: priced.map(({ cost }) => cost) },
  ];
}

function balanceRows(rows: readonly SparseRow[], rowFactors: Float64Array, columnFactors: Float64Array): void {
  rows.forEach(({ columns, coefficients }, row) => {
    let smallest = Infinity;
    let largest = 0;
    columns.forEach((column, i) => {
      const size = Math.abs(coefficients[i]!) * columnFactors[column]!;
      smallest = Math.min(smallest, size);
      largest = Math.max(largest, size);
    });
    rowFactors[row] = balancingFactor(smallest, largest);
  });
}

function balanceColumns(rows: readonly SparseRow[], rowFactors: Float64Array, columnFactors: Float64Array): void {
  const smallest = new Float64Array(columnFactors.length).fill(Infinity);
  const largest = new Float64Array(columnFactors.length);
  rows.forEach(({ columns, coefficients }, row) => {
    columns.forEach((column, i) => {
      const size = Math.abs(coefficients[i]!) * rowFactors[row]!;
      smallest[column] = Math.min(smallest[column]!, size);
      largest[column] = Math.max(largest[column]!, size);
    });
  });
  columnFactors.forEach((_, column) => {
    columnFactors[column] = balancingFactor(smallest[column]!, largest[column]!);
  });
}

export function equilibrate(program: LinearProgram, rows: readonly SparseRow[]): Scaling {
  const numColumns = program.variables.length;
  const matrix = wholeMatrix(program, rows);
  const rowFactors = new Float64Array(matrix.length).fill(1);
  const factors = new Float64Array(numColumns + 1).fill(1);
  for (let pass = 0; pass < PASSES; pass++) {
    balanceRows(matrix, rowFactors, factors);
    balanceColumns(matrix, rowFactors, factors);
  }
  const unit = factors[numColumns]!;
  return {
    rowFactors: rowFactors.subarray(0, rows.length).map((factor) => factor * unit),
    columnFactors: factors.subarray(0, numColumns).map((factor) => factor / unit),
    objectiveFactor: rowFactors[matrix.length - 1]! * unit,
  };
}
