/** The search that ships with FlexGen's cost model, over our port of its terms: for the values it is known to find. */
import {
  estimateFlexGenReleased,
  releasedLayerSeconds,
  releasedPeakBytes,
} from '../../../src/cost-model/baselines/flexgen-released.js';
import type { ModelConfig } from '../../../src/models/model-config.js';
import { TENSOR_CLASSES, type Placement, type Policy } from '../../../src/policy/policy.js';
import { createGlpkSolver } from '../../../src/solver/glpk.js';
import type { LinearProgram } from '../../../src/solver/linear-program.js';
import { TIERS, type Tier } from '../../../src/tiers.js';
import type { Workload } from '../../../src/workload/workload.js';

/** The program keeps to 80 % of every capacity. */
const RELAXATION = 0.8;

const FRACTIONS = TENSOR_CLASSES.flatMap((tensorClass) => TIERS.map((tier) => ({ tensorClass, tier })));
const fractionName = ({ tensorClass, tier }: (typeof FRACTIONS)[number]) => `${tensorClass}.${tier}`;

function placementOf(value: (name: string) => number): Placement {
  const entries = TENSOR_CLASSES.map((tensorClass) => [
    tensorClass,
    Object.fromEntries(TIERS.map((tier) => [tier, value(fractionName({ tensorClass, tier }))])),
  ]);
  return Object.fromEntries(entries) as Placement;
}

/**
 * Constant and coefficients of functions that are affine in the nine fractions, by evaluating them at 0 and at the unit
 * points.
 */
function affineRows(shape: Omit<Policy, 'placement'>, functions: (policy: Policy) => readonly number[]) {
  const at = (name?: string) => functions({ ...shape, placement: placementOf((n) => (n === name ? 1 : 0)) });
  const constants = at();
  const columns = FRACTIONS.map((fraction) => ({
    variable: fractionName(fraction),
    values: at(fractionName(fraction)),
  }));
  return constants.map((constant, row) => ({
    constant,
    terms: columns.map(({ variable, values }) => ({ variable, coefficient: values[row]! - constant })),
  }));
}

function buildProgram(
  model: ModelConfig,
  workload: Workload,
  shape: Omit<Policy, 'placement'>,
  capacity: Record<Tier, number>,
): LinearProgram {
  const times = (['prefill', 'decode'] as const).flatMap((phase) =>
    affineRows(shape, (policy) => releasedLayerSeconds(model, workload, policy)[phase]).map(
      ({ constant, terms }, i) => ({
        name: `${phase} ${i}`,
        terms: [{ variable: phase, coefficient: 1 }, ...terms.map((t) => ({ ...t, coefficient: -t.coefficient }))],
        lower: constant,
        upper: Infinity,
      }),
    ),
  );
  const peaks = TIERS.flatMap((tier) =>
    affineRows(shape, (policy) => releasedPeakBytes(model, workload, policy)[tier]).map(({ constant, terms }, i) => ({
      name: `${tier} ${i}`,
      terms,
      lower: -Infinity,
      upper: RELAXATION * capacity[tier] - constant,
    })),
  );
  const sums = TENSOR_CLASSES.map((tensorClass) => ({
    name: `sum ${tensorClass}`,
    terms: TIERS.map((tier) => ({ variable: fractionName({ tensorClass, tier }), coefficient: 1 })),
    lower: 1,
    upper: 1,
  }));
  return {
    name: 'released',
    objectiveConstant: 0,
    variables: [
      { name: 'prefill', lower: 0, upper: Infinity, cost: model.numLayers },
      { name: 'decode', lower: 0, upper: Infinity, cost: model.numLayers * (workload.genTokens - 1) },
      ...FRACTIONS.map((fraction) => ({
        name: fractionName(fraction),
        lower: 0,
        // Hidden states never go to disk: the engine cannot.
        upper: fraction.tensorClass === 'activations' && fraction.tier === 'disk' ? 0 : 1,
        cost: 0,
      })),
    ],
    rows: [...times, ...peaks, ...sums],
  };
}

/** GPU batches 1, 2, 3, 4, 8, 16, ...; for each, more of them until that is slower or does not fit. */
export async function searchReleased(model: ModelConfig, workload: Workload, capacity: Record<Tier, number>) {
  const solver = createGlpkSolver();
  let best: { policy: Policy; genTokensPerSecond: number } | undefined;
  const attempt = async (gpuBatchSize: number, numGpuBatches: number) => {
    const shape = {
      gpuBatchSize,
      numGpuBatches,
      weightBits: 16,
      kvCacheBits: 16,
      quantGroupSize: 64,
      cpuAttentionFraction: 1,
      overlap: true,
    } as const;
    const solution = await solver.solve(buildProgram(model, workload, shape, capacity));
    if (solution.status !== 'optimal') return undefined;
    const policy = { ...shape, placement: placementOf((name) => solution.values[name]!) };
    return { policy, genTokensPerSecond: estimateFlexGenReleased(model, workload, policy).genTokensPerSecond };
  };
  for (let gpuBatchSize = 1; ; gpuBatchSize = gpuBatchSize < 4 ? gpuBatchSize + 1 : 2 * gpuBatchSize) {
    let previous = await attempt(gpuBatchSize, 1);
    if (!previous) return best!;
    if (!best || previous.genTokensPerSecond > best.genTokensPerSecond) best = previous;
    for (let numGpuBatches = 2; ; numGpuBatches++) {
      const found = await attempt(gpuBatchSize, numGpuBatches);
      if (!found || found.genTokensPerSecond < previous.genTokensPerSecond) break;
      previous = found;
      if (found.genTokensPerSecond > best.genTokensPerSecond) best = found;
    }
  }
}
