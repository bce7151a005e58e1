/**
 * The set of all placements: one simplex for each tensor class, and attention on the CPU over no more KV cache than is
 * there.
 */
import { positionOf, type Affine, type PlacementVariable } from '../cost-model/affine.js';
import type { Placement, Policy, TensorClass } from '../policy/policy.js';
import { TENSOR_CLASSES } from '../policy/policy.js';
import { remembered } from '../remembered.js';
import { TIERS, type Tier } from '../tiers.js';

/** Which placements the machine allows. */
export interface PlacementDomain {
  /** Tiers with any capacity. */
  readonly tiers: readonly Tier[];
  /** Whether there is a CPU beside the device to attend. */
  readonly cpuAttention: boolean;
}

export const placementVariable = (tensorClass: TensorClass, tier: Tier): PlacementVariable => `${tensorClass}.${tier}`;

/**
 * For each class the positions of its coefficients on the tiers that there are, and for KV cache of what attention
 * there adds to it.
 */
interface ClassPositions {
  readonly placed: readonly number[];
  /** As long as `placed`; -1 where no attention is left to the CPU. */
  readonly attended: readonly number[];
}

const classPositions = remembered(({ tiers, cpuAttention }: PlacementDomain): ClassPositions[] =>
  TENSOR_CLASSES.map((tensorClass) => ({
    placed: tiers.map((tier) => positionOf(placementVariable(tensorClass, tier))),
    attended: tiers.map((tier) => {
      if (tensorClass !== 'kvCache' || !cpuAttention || tier === 'gpu') return -1;
      return positionOf(tier === 'cpu' ? 'kvCpuAttended' : 'kvDiskCpuAttended');
    }),
  })),
);

/**
 * Least value of the term over the whole domain: each class goes wholly to its cheapest tier. Infinity if no tier is
 * left.
 */
export function minimumOver(domain: PlacementDomain, { constant, coefficients }: Affine): number {
  let value = constant;
  for (const { placed, attended } of classPositions(domain)) {
    let least = Infinity;
    for (let t = 0; t < placed.length; t++) {
      const position = attended[t]!;
      const saving = position < 0 ? 0 : Math.min(0, coefficients[position]!);
      least = Math.min(least, coefficients[placed[t]!]! + saving);
    }
    value += least;
  }
  return value;
}

/** Fractions from the solver's numbers: dust removed, sums exactly 1. */
function cleanFractions(values: Readonly<Record<string, number>>, tensorClass: TensorClass): Placement[TensorClass] {
  const clean = (tier: Tier): number => {
    const value = values[placementVariable(tensorClass, tier)] ?? 0;
    return value < FRACTION_DUST ? 0 : value;
  };
  const [gpu, cpu, disk] = TIERS.map(clean) as [number, number, number];
  const total = gpu + cpu + disk;
  return { gpu: gpu / total, cpu: cpu / total, disk: disk / total };
}

/** Below this a fraction is rounding error of the solver, not a wish: of 10^12 bytes it is a kilobyte. */
const FRACTION_DUST = 1e-9;

type PlacementPart = Pick<Policy, 'placement' | 'cpuAttentionFraction' | 'diskKvCpuAttentionFraction'>;

/** The part of a policy that a point of the domain describes. */
export function placementOf(values: Readonly<Record<string, number>>): PlacementPart {
  const placement = {
    weights: cleanFractions(values, 'weights'),
    kvCache: cleanFractions(values, 'kvCache'),
    activations: cleanFractions(values, 'activations'),
  };
  const share = (attended: number | undefined, whole: number): number =>
    whole === 0 ? 0 : Math.min(1, Math.max(0, (attended ?? 0) / whole));
  return {
    placement,
    cpuAttentionFraction: share(values['kvCpuAttended'], placement.kvCache.cpu),
    diskKvCpuAttentionFraction: share(values['kvDiskCpuAttended'], placement.kvCache.disk),
  };
}
