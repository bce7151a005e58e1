/** Small changes to a program already built: rounding solves one program many times over. */
import type { PlacementVariable } from '../cost-model/affine.js';
import { TENSOR_CLASSES } from '../policy/policy.js';
import { TIERS, type Tier } from '../tiers.js';
import { memoryRowTier } from './build-program.js';
import type { LinearProgram } from './linear-program.js';
import { placementVariable } from './placements.js';

/** Values that placement variables are held at. */
export type Fixed = Readonly<Partial<Record<PlacementVariable, number>>>;

export function withFixed(program: LinearProgram, fixed: Fixed): LinearProgram {
  const values: Readonly<Record<string, number | undefined>> = fixed;
  return {
    ...program,
    variables: program.variables.map((variable) => {
      const value = values[variable.name];
      return value === undefined ? variable : { ...variable, lower: value, upper: value };
    }),
  };
}

/** Every tier with so many bytes less. */
export function withLessMemory(program: LinearProgram, lessBytes: Readonly<Record<Tier, number>>): LinearProgram {
  return {
    ...program,
    rows: program.rows.map((row) => {
      const tier = memoryRowTier(row.name);
      return tier ? { ...row, upper: row.upper - lessBytes[tier] } : row;
    }),
  };
}

const NUDGE_FRACTION = 1e-5;
const NUDGES: Readonly<Partial<Record<Tier, number>>> = { cpu: 1, disk: 2 };

/**
 * Where tiers are equally fast for the job (none of them is its bottleneck), the faster ones: a price on the slower
 * ones, of a part of the objective far below the error of any estimate.
 */
export function preferringFastTiers(program: LinearProgram, objective: number): LinearProgram {
  const nudges = new Map(
    TENSOR_CLASSES.flatMap((tensorClass) =>
      TIERS.map((tier) => [placementVariable(tensorClass, tier), NUDGES[tier] ?? 0] as const),
    ),
  );
  return {
    ...program,
    variables: program.variables.map((variable) => {
      const nudge = nudges.get(variable.name as PlacementVariable) ?? 0;
      return { ...variable, cost: variable.cost + NUDGE_FRACTION * nudge * objective };
    }),
  };
}
