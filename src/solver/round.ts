/**
 * From the fractions of a linear program to slices that the engine can place, without breaking a capacity: whole
 * sequences first (a few ways to round them), then the weights anew around them, then smaller capacities until all
 * fits.
 */
import type { CostTerms } from '../cost-model/cost-terms.js';
import type { PlacementVariable } from '../cost-model/affine.js';
import type { RealisedEstimate } from '../cost-model/estimate.js';
import type { Estimate } from '../cost-model/estimate-types.js';
import { blockSize, type Policy, type TierFractions } from '../policy/policy.js';
import { TIERS, type Tier } from '../tiers.js';
import { preferringFastTiers, withFixed, withLessMemory, type Fixed } from './adjust-program.js';
import type { LinearProgram, LinearSolver, OptimalSolution } from './linear-program.js';
import { placementOf, type PlacementDomain } from './placements.js';
import type { BatchShape } from '../cost-model/cost-terms.js';

/** A policy as it is realised. */
export interface RealisedPolicy {
  readonly policy: Policy;
  readonly estimate: Estimate;
  /** Of one full block. */
  readonly blockSeconds: number;
}

export interface RoundingProblem {
  readonly shape: BatchShape;
  readonly terms: CostTerms;
  readonly domain: PlacementDomain;
  /** Of the shape, whose solution is to be rounded. */
  readonly program: LinearProgram;
  readonly maxLatencySeconds: number;
  readonly solver: LinearSolver;
  /** Estimate of the policy's realisation. */
  estimateRealised(policy: Policy): RealisedEstimate;
}

type SlotRounding = (slots: number) => number;
/** `Math.floor` leaves a fast tier a slot emptier, `Math.ceil` fills it; dust is not worth a slot. */
const ROUNDINGS: readonly SlotRounding[] = [
  Math.round,
  (slots) => Math.floor(slots + 1e-6),
  (slots) => Math.ceil(slots - 1e-6),
];
const MOST_REPAIRS = 6;

/** Whole slots for each tier. What a faster tier does not take goes to the next one that the plan uses. */
function wholeSlots(
  fractions: TierFractions,
  slots: number,
  round: SlotRounding,
  domain: PlacementDomain,
): TierFractions {
  const gpu = Math.min(slots, round(fractions.gpu * slots));
  const rest = slots - gpu;
  const below = fractions.cpu + fractions.disk;
  const canSpill = domain.tiers.includes('cpu') || domain.tiers.includes('disk');
  if (!canSpill) return { gpu: 1, cpu: 0, disk: 0 };
  if (below === 0) {
    const cpu = domain.tiers.includes('cpu') ? rest : 0;
    return { gpu: gpu / slots, cpu: cpu / slots, disk: (rest - cpu) / slots };
  }
  const cpu = Math.min(rest, round((fractions.cpu / below) * rest));
  return { gpu: gpu / slots, cpu: cpu / slots, disk: (rest - cpu) / slots };
}

const wholeShare = (share: number, slots: number, round: SlotRounding): number =>
  slots < 0.5 ? 0 : Math.min(1, round(share * Math.round(slots)) / Math.round(slots));

/** The policy with KV cache, activations and attention in whole sequences. */
function roundSlots(policy: Policy, round: SlotRounding, domain: PlacementDomain): Policy {
  const slots = blockSize(policy);
  const kvCache = wholeSlots(policy.placement.kvCache, slots, round, domain);
  const activations = wholeSlots(policy.placement.activations, slots, round, domain);
  return {
    ...policy,
    placement: { ...policy.placement, kvCache, activations },
    cpuAttentionFraction: wholeShare(policy.cpuAttentionFraction, kvCache.cpu * slots, round),
    diskKvCpuAttentionFraction: wholeShare(policy.diskKvCpuAttentionFraction ?? 0, kvCache.disk * slots, round),
  };
}

function slotVariables({ placement, cpuAttentionFraction, diskKvCpuAttentionFraction = 0 }: Policy): Fixed {
  const fixed: Partial<Record<PlacementVariable, number>> = {
    kvCpuAttended: placement.kvCache.cpu * cpuAttentionFraction,
    kvDiskCpuAttended: placement.kvCache.disk * diskKvCpuAttentionFraction,
  };
  for (const tier of TIERS) {
    fixed[`kvCache.${tier}`] = placement.kvCache[tier];
    fixed[`activations.${tier}`] = placement.activations[tier];
  }
  return fixed;
}

function overflow({ capacityBytes }: CostTerms, { peakBytes }: RealisedEstimate): Record<Tier, number> {
  const over = (tier: Tier): number => Math.max(0, peakBytes[tier] - capacityBytes[tier]);
  return { gpu: over('gpu'), cpu: over('cpu'), disk: over('disk') };
}

const fits = ({ gpu, cpu, disk }: Record<Tier, number>): boolean => gpu === 0 && cpu === 0 && disk === 0;

interface Placed {
  readonly policy: Policy;
  readonly estimate: RealisedEstimate;
}

/** Solves for what is not fixed, with capacities tightened by what the realisation of the last answer had too much. */
async function placeAround(
  { terms, shape, maxLatencySeconds, solver, ...problem }: RoundingProblem,
  program: LinearProgram,
): Promise<Placed | undefined> {
  let tightened = program;
  for (let repair = 0; repair <= MOST_REPAIRS; repair++) {
    const solution = await solver.solve(tightened);
    if (solution.status !== 'optimal') return undefined;
    const policy = { ...shape, ...placementOf(solution.values) };
    const estimate = problem.estimateRealised(policy);
    const over = overflow(terms, estimate);
    if (fits(over)) return estimate.blockSeconds() <= maxLatencySeconds ? { policy, estimate } : undefined;
    tightened = withLessMemory(tightened, over);
  }
  return undefined;
}

/** Closer to the relaxed optimum than this another rounding is not tried: far below the error of any estimate. */
const CLOSE_ENOUGH = 5e-4;

/** The different ways to round a policy's sequences to whole ones. */
function roundedSlots(policy: Policy, domain: PlacementDomain): Fixed[] {
  const seen = new Set<string>();
  return ROUNDINGS.map((round) => slotVariables(roundSlots(policy, round, domain))).filter((fixed) => {
    const key = JSON.stringify(fixed);
    return !seen.has(key) && seen.add(key);
  });
}

/** The best realised policy near a solution of the relaxed program, or undefined when none of the roundings fits. */
export async function roundToSlices(
  problem: RoundingProblem,
  solution: OptimalSolution,
): Promise<RealisedPolicy | undefined> {
  const program = preferringFastTiers(problem.program, solution.objective);
  const settled = await problem.solver.solve(program);
  const near = settled.status === 'optimal' ? settled.values : solution.values;
  const slots = roundedSlots({ ...problem.shape, ...placementOf(near) }, problem.domain);
  const best = (await bestPlaced(problem, program, slots, solution.objective)) ?? (await placeAround(problem, program));
  return best && { policy: best.policy, estimate: best.estimate.whole(), blockSeconds: best.estimate.blockSeconds() };
}

async function bestPlaced(
  problem: RoundingProblem,
  program: LinearProgram,
  slots: readonly Fixed[],
  relaxedSeconds: number,
): Promise<Placed | undefined> {
  let best: Placed | undefined;
  for (const fixed of slots) {
    const candidate = await placeAround(problem, withFixed(program, fixed));
    if (candidate && (!best || candidate.estimate.totalSeconds() < best.estimate.totalSeconds())) best = candidate;
    if (best && best.estimate.totalSeconds() <= relaxedSeconds * (1 + CLOSE_ENOUGH)) break;
  }
  return best;
}
