/**
 * What more of one resource is worth: first what the duals say of a little more, then planned anew with all of it.
 * Both compare relaxed programs, so that rounding to whole sequences does not blur a difference.
 */
import type { BatchShape, CostTerms } from '../cost-model/cost-terms.js';
import { evaluate, type PlacementPoint } from '../cost-model/affine.js';
import { capacityBytes, hasGpuTier, linkRate, withCapacity } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import { LINKS, TIERS, type Tier } from '../tiers.js';
import { formatBytes, GIB } from '../units.js';
import { withLinkSpeed } from './changed-hardware.js';
import { buildProgram, placementDomain } from './build-program.js';
import type { LinearSolver } from './linear-program.js';
import type { Resource, Sensitivity } from './plan.js';
import { cannotFit, pricesOf, secondsBound, type Prices } from './prices.js';
import type { FoundPolicy, JobModel } from './search.js';

const ADDED_BYTES = 8 * GIB;
const LINK_FACTOR = 2;
/** Step of the difference quotient for a link's rate. */
const SMALL_FACTOR = 1 + 1e-6;

const CAPACITY_NAMES: Readonly<Record<Tier, Resource>> = {
  gpu: 'gpuCapacity',
  cpu: 'cpuCapacity',
  disk: 'diskCapacity',
};

interface Change {
  readonly resource: Resource;
  readonly add: string;
  readonly hardware: HardwareProfile;
  /** Seconds of the job that the duals promise for the whole change. */
  readonly firstOrderSeconds: number;
}

/** Seconds of the job at a fixed placement, each segment weighed by the bounds that were binding. */
function weighedSeconds({ segments }: CostTerms, { boundWeights }: Prices, point: PlacementPoint): number {
  return segments.reduce((total, { count, boundSeconds }, segment) => {
    const values = boundSeconds.map((bound) => evaluate(bound, point));
    const weights = boundWeights[segment] ?? [];
    const seconds =
      weights.length === values.length
        ? values.reduce((sum, value, i) => sum + weights[i]! * value, 0)
        : Math.max(...values);
    return total + count * seconds;
  }, 0);
}

function capacityChanges(hardware: HardwareProfile, prices: Prices): Change[] {
  const tiers = TIERS.filter((tier) => tier !== 'gpu' || hasGpuTier(hardware));
  return tiers.map((tier) => ({
    resource: CAPACITY_NAMES[tier],
    add: formatBytes(ADDED_BYTES),
    hardware: withCapacity(hardware, { [tier]: capacityBytes(hardware)[tier] + ADDED_BYTES }),
    firstOrderSeconds: -ADDED_BYTES * prices.memorySecondsPerByte[tier].reduce((sum, price) => sum + price, 0),
  }));
}

function linkChanges(
  hardware: HardwareProfile,
  prices: Prices,
  best: FoundPolicy,
  modelOf: (hardware: HardwareProfile) => JobModel,
): Change[] {
  const point = best.solution.values as PlacementPoint;
  const before = weighedSeconds(best.terms, prices, point);
  return LINKS.filter((link) => linkRate(hardware, link)).map((link) => {
    const slightly = modelOf(withLinkSpeed(hardware, link, SMALL_FACTOR)).costTerms(best.shape);
    const slope = (weighedSeconds(slightly, prices, point) - before) / (SMALL_FACTOR - 1);
    return {
      resource: link,
      add: `${LINK_FACTOR}x`,
      hardware: withLinkSpeed(hardware, link, LINK_FACTOR),
      firstOrderSeconds: slope * (LINK_FACTOR - 1),
    };
  });
}

/**
 * Of the relaxed programs of some shapes the highest throughput. Shapes that the prices prove to be slower are not
 * solved.
 */
async function bestRelaxedThroughput(
  job: JobModel,
  shapes: readonly BatchShape[],
  solver: LinearSolver,
  maxLatencySeconds: number,
  prices: Prices,
): Promise<number> {
  let best = 0;
  for (const shape of shapes) {
    const terms = job.costTerms(shape);
    const domain = placementDomain(terms, job.device);
    if (cannotFit(terms, domain) || terms.genTokens / secondsBound(terms, domain, prices) <= best) continue;
    const solution = await solver.solve(buildProgram(terms, domain, maxLatencySeconds));
    if (solution.status === 'optimal') best = Math.max(best, terms.genTokens / solution.objective);
  }
  return best;
}

/**
 * Largest gain first. `shapes` are the batch shapes among which the changed machine is planned, the chosen one first:
 * a gain is never negative, and never promises more than there is.
 */
export async function sensitivities(
  best: FoundPolicy,
  shapes: readonly BatchShape[],
  hardware: HardwareProfile,
  modelOf: (hardware: HardwareProfile) => JobModel,
  solver: LinearSolver,
  maxLatencySeconds: number,
): Promise<Sensitivity[]> {
  const prices = pricesOf(best.terms, best.solution.rowDuals);
  const throughputOn = (machine: HardwareProfile): Promise<number> =>
    bestRelaxedThroughput(modelOf(machine), shapes, solver, maxLatencySeconds, prices);
  const before = await throughputOn(hardware);
  const perSecond = best.terms.genTokens / best.relaxedSeconds ** 2;
  const answers: Sensitivity[] = [];
  const changes = [...capacityChanges(hardware, prices), ...linkChanges(hardware, prices, best, modelOf)];
  for (const { resource, add, hardware: changed, firstOrderSeconds } of changes) {
    const gain = (await throughputOn(changed)) - before;
    answers.push({
      resource,
      add,
      genTokensPerSecondDelta: Math.max(0, gain),
      firstOrderDelta: -firstOrderSeconds * perSecond,
    });
  }
  return answers.sort((a, b) => b.genTokensPerSecondDelta - a.genTokensPerSecondDelta);
}
