import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { certify } from '../../src/solver/certificate.js';
import { createGlpkSolver, type GlpkInstance } from '../../src/solver/glpk.js';
import type { LinearProgram, OptimalSolution } from '../../src/solver/linear-program.js';

const solver = createGlpkSolver();

/** minimise -x - 2y, x + y <= 4, y <= 3, 0 <= x, y: the optimum is -7 at (1, 3). */
const textbook: LinearProgram = {
  name: 'textbook',
  objectiveConstant: 0,
  variables: [
    { name: 'x', lower: 0, upper: Infinity, cost: -1 },
    { name: 'y', lower: 0, upper: 3, cost: -2 },
  ],
  rows: [
    {
      name: 'sum',
      terms: [
        { variable: 'x', coefficient: 1 },
        { variable: 'y', coefficient: 1 },
      ],
      lower: -Infinity,
      upper: 4,
    },
  ],
};

async function optimum(program: LinearProgram): Promise<OptimalSolution> {
  const solution = await solver.solve(program);
  if (solution.status !== 'optimal') throw new Error(`expected an optimum, got ${JSON.stringify(solution)}`);
  return solution;
}

const finite = (min: number, max: number): fc.Arbitrary<number> => fc.double({ min, max, noNaN: true });

interface KnownProgram {
  readonly program: LinearProgram;
  readonly objective: number;
}

/**
 * Builds a program around a point and duals that satisfy the optimality conditions, so the optimum is known beforehand.
 */
function programWithKnownOptimum(
  matrix: readonly (readonly number[])[],
  point: readonly number[],
  duals: readonly number[],
): KnownProgram {
  const name = (column: number): string => `x${column}`;
  const sums = matrix.map((row) => row.reduce((sum, a, column) => sum + a * point[column]!, 0));
  const costs = point.map((value, column) => {
    const priced = matrix.reduce((sum, row, i) => sum + row[column]! * duals[i]!, 0);
    return value === 0 ? priced + 1 + column : priced;
  });
  return {
    objective: costs.reduce((sum, cost, column) => sum + cost * point[column]!, 0),
    program: {
      name: 'known',
      objectiveConstant: 0,
      variables: costs.map((cost, column) => ({ name: name(column), lower: 0, upper: Infinity, cost })),
      rows: matrix.map((row, i) => ({
        name: `row${i}`,
        terms: row.map((coefficient, column) => ({ variable: name(column), coefficient })),
        lower: duals[i]! > 0 ? sums[i]! : sums[i]! - 1,
        upper: Infinity,
      })),
    },
  };
}

const knownProgram: fc.Arbitrary<KnownProgram> = fc
  .tuple(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 7 }))
  .chain(([numRows, numColumns]) =>
    fc.tuple(
      fc.array(fc.array(fc.integer({ min: -9, max: 9 }), { minLength: numColumns, maxLength: numColumns }), {
        minLength: numRows,
        maxLength: numRows,
      }),
      fc.array(fc.integer({ min: 0, max: 5 }), { minLength: numColumns, maxLength: numColumns }),
      fc.array(fc.integer({ min: 0, max: 5 }), { minLength: numRows, maxLength: numRows }),
    ),
  )
  .map(([matrix, point, duals]) => programWithKnownOptimum(matrix, point, duals));

/** The same program in other units: rows and columns multiplied by powers of ten, the optimum unchanged. */
function rescaled(
  program: LinearProgram,
  rowExponents: readonly number[],
  columnExponents: readonly number[],
): LinearProgram {
  const columnFactor = new Map(program.variables.map(({ name }, column) => [name, 10 ** columnExponents[column]!]));
  return {
    ...program,
    variables: program.variables.map((variable) => {
      const factor = columnFactor.get(variable.name)!;
      return {
        ...variable,
        cost: variable.cost * factor,
        lower: variable.lower / factor,
        upper: variable.upper / factor,
      };
    }),
    rows: program.rows.map((row, i) => {
      const factor = 10 ** rowExponents[i]!;
      return {
        ...row,
        terms: row.terms.map(({ variable, coefficient }) => ({
          variable,
          coefficient: coefficient * factor * columnFactor.get(variable)!,
        })),
        lower: row.lower * factor,
        upper: row.upper * factor,
      };
    }),
  };
}

describe('the GLPK wrapper', () => {
  it('finds the optimum, the point and the duals of a textbook program', async () => {
    const solution = await optimum(textbook);
    expect(solution.objective).toBeCloseTo(-7, 12);
    expect(solution.values.x).toBeCloseTo(1, 12);
    expect(solution.values.y).toBeCloseTo(3, 12);
    expect(solution.rowDuals.sum).toBeCloseTo(-1, 12);
  });

  it('adds the objective constant', async () => {
    expect((await optimum({ ...textbook, objectiveConstant: 10 })).objective).toBeCloseTo(3, 12);
  });

  it('tells infeasible from unbounded', async () => {
    const row = textbook.rows[0]!;
    expect(await solver.solve({ ...textbook, rows: [{ ...row, lower: -Infinity, upper: -1 }] })).toEqual({
      status: 'infeasible',
    });
    expect(await solver.solve({ ...textbook, rows: [] })).toEqual({ status: 'unbounded' });
    expect(await solver.solve({ ...textbook, rows: [{ ...row, lower: 5, upper: 4 }] })).toEqual({
      status: 'infeasible',
    });
  });

  it('merges a variable that a row names twice', async () => {
    const twice = { ...textbook.rows[0]!, terms: [...textbook.rows[0]!.terms, { variable: 'x', coefficient: 1 }] };
    const solution = await optimum({ ...textbook, rows: [twice] });
    expect(solution.values.x).toBeCloseTo(0.5, 12);
    const cancelled = { ...twice, terms: [...twice.terms, { variable: 'x', coefficient: -2 }] };
    expect(await solver.solve({ ...textbook, rows: [cancelled] })).toEqual({ status: 'unbounded' });
  });

  it.each([
    ['a NaN cost', { variables: [{ name: 'x', lower: 0, upper: 1, cost: NaN }] }, /finite cost of "x", got NaN/],
    ['an infinite cost', { variables: [{ name: 'x', lower: 0, upper: 1, cost: Infinity }] }, /finite cost/],
    ['a NaN bound', { variables: [{ name: 'x', lower: NaN, upper: 1, cost: 1 }] }, /lower bound of "x"/],
    ['a NaN row bound', { rows: [{ name: 'r', terms: [], lower: 0, upper: NaN }] }, /upper bound of "r"/],
    ['a NaN constant', { objectiveConstant: NaN }, /objective constant/],
    [
      'an infinite coefficient',
      { rows: [{ name: 'r', terms: [{ variable: 'x', coefficient: Infinity }], lower: 0, upper: 1 }] },
      /coefficient of "x" in row "r"/,
    ],
    [
      'an unknown variable',
      { rows: [{ name: 'r', terms: [{ variable: 'z', coefficient: 1 }], lower: 0, upper: 1 }] },
      /"z", which is no variable/,
    ],
    ['a name twice', { variables: [...textbook.variables, textbook.variables[0]!] }, /"x" twice/],
    ['an empty name', { variables: [{ name: '', lower: 0, upper: 1, cost: 1 }] }, /1 to 255 characters/],
  ] satisfies [string, Partial<LinearProgram>, RegExp][])('refuses %s and says so', async (_, change, reason) => {
    const solution = await solver.solve({ ...textbook, ...change });
    expect(solution).toMatchObject({ status: 'failed', reason: expect.stringMatching(reason) as string });
  });

  it('recovers after the WebAssembly module has aborted', async () => {
    let loads = 0;
    const { default: realGlpk } = await import('glpk.js/node');
    const aborting = createGlpkSolver(async () => ({
      default: async (): Promise<GlpkInstance> => {
        const glpk = await realGlpk();
        loads += 1;
        return loads > 1
          ? glpk
          : {
              ...glpk,
              solve: () => {
                throw new Error('Aborted()');
              },
            };
      },
    }));
    expect(await aborting.solve(textbook)).toMatchObject({ status: 'failed', reason: 'GLPK gave up: Aborted()' });
    expect(await aborting.solve(textbook)).toMatchObject({ status: 'optimal' });
    expect(loads).toBe(2);
  });

  it('does not pass on a point that it cannot prove to be optimal', async () => {
    const { default: realGlpk } = await import('glpk.js/node');
    const lying = createGlpkSolver(async () => ({
      default: async (): Promise<GlpkInstance> => {
        const glpk = await realGlpk();
        return {
          ...glpk,
          solve: () => ({
            name: '',
            time: 0,
            result: { status: glpk.GLP_OPT, z: 0, vars: { x0: 9, x1: 9 }, dual: {} },
          }),
        };
      },
    }));
    expect(await lying.solve(textbook)).toMatchObject({
      status: 'failed',
      reason: expect.stringMatching(/provable optimum/) as string,
    });
  });

  it('finds the known optimum of random programs, with a valid certificate', async () => {
    await fc.assert(
      fc.asyncProperty(knownProgram, async ({ program, objective }) => {
        const solution = await optimum(program);
        expect(Math.abs(solution.objective - objective)).toBeLessThanOrEqual(1e-7 * (1 + Math.abs(objective)));
        expect(certify(program, solution)).toMatchObject({ valid: true });
      }),
      { numRuns: 300 },
    );
  });

  it('does so too when rows and columns are scaled by up to 10^±6', async () => {
    const exponents = fc.array(fc.integer({ min: -6, max: 6 }), { minLength: 7, maxLength: 7 });
    await fc.assert(
      fc.asyncProperty(knownProgram, exponents, exponents, async ({ program, objective }, rows, columns) => {
        const scaled = rescaled(program, rows, columns);
        const solution = await optimum(scaled);
        expect(Math.abs(solution.objective - objective)).toBeLessThanOrEqual(1e-6 * (1 + Math.abs(objective)));
        expect(certify(scaled, solution)).toMatchObject({ valid: true });
      }),
      { numRuns: 300 },
    );
  });

  it('tells infeasible and unbounded apart under the same scaling', async () => {
    const exponents = fc.array(fc.integer({ min: -6, max: 6 }), { minLength: 8, maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(knownProgram, exponents, exponents, async ({ program }, rows, columns) => {
        const first = program.variables[0]!.name;
        const contradiction = { name: 'no', terms: [{ variable: first, coefficient: 1 }], lower: -Infinity, upper: -1 };
        const infeasible = { ...program, rows: [...program.rows, contradiction] };
        expect(await solver.solve(rescaled(infeasible, rows, columns))).toEqual({ status: 'infeasible' });
        const ray = { name: 'ray', lower: 0, upper: Infinity, cost: -1 };
        const unbounded = { ...program, variables: [...program.variables, ray] };
        expect(await solver.solve(rescaled(unbounded, rows, columns))).toEqual({ status: 'unbounded' });
      }),
      { numRuns: 300 },
    );
  });
});

describe('the certificate', () => {
  it('refuses a point that is feasible but not the best', async () => {
    const best = await optimum(textbook);
    const worse = { ...best, values: { x: 0, y: 3 }, objective: -6 };
    const certificate = certify(textbook, worse);
    expect(certificate.primalViolation).toBe(0);
    expect(certificate.dualityGap).toBeGreaterThan(0.01);
    expect(certificate.valid).toBe(false);
  });

  it('refuses a point outside, however good', async () => {
    const best = await optimum(textbook);
    expect(certify(textbook, { ...best, values: { x: 2, y: 3 } })).toMatchObject({ valid: false });
    expect(certify(textbook, { ...best, values: {} })).toMatchObject({ valid: false });
  });

  it('refuses duals that prove nothing', async () => {
    const best = await optimum(textbook);
    expect(certify(textbook, { ...best, rowDuals: { sum: -0.5 } })).toMatchObject({ valid: false });
    expect(certify(textbook, { ...best, rowDuals: { sum: 1 } })).toMatchObject({ valid: false });
    expect(certify(textbook, { ...best, rowDuals: {} })).toMatchObject({ valid: false });
  });

  it('catches any perturbation of a random optimum that is not itself optimal', async () => {
    let caught = 0;
    await fc.assert(
      fc.asyncProperty(knownProgram, finite(0.5, 2), fc.nat(6), async ({ program, objective }, step, pick) => {
        const solution = await optimum(program);
        const { name } = program.variables[pick % program.variables.length]!;
        const values = { ...solution.values, [name]: solution.values[name]! + step };
        const moved = program.variables.reduce((sum, { name, cost }) => sum + cost * values[name]!, 0);
        fc.pre(Math.abs(moved - objective) > 1e-3 * (1 + Math.abs(objective)));
        expect(certify(program, { ...solution, values }).valid).toBe(false);
        caught += 1;
      }),
      { numRuns: 200 },
    );
    expect(caught).toBeGreaterThanOrEqual(200);
  });
});
