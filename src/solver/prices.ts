/**
 * Bounds by weak duality: the duals of one solved program price the memory and weigh the stages of every other shape,
 * and whatever the prices, the priced problem never takes longer than the real one. It is solved by looking at
 * each tensor class on its own, so a bound costs microseconds where a program costs a millisecond.
 */
import { constant, sum, weightedSum, type Affine } from '../cost-model/affine.js';
import type { CostTerms, Segment } from '../cost-model/cost-terms.js';
import { TIERS, type Tier } from '../tiers.js';
import { memoryRowName, secondsRowName } from './build-program.js';
import { minimumOver, type PlacementDomain } from './placements.js';

export interface Prices {
  /** Seconds of the job that one more byte saves, for each tier and moment. */
  readonly memorySecondsPerByte: Readonly<Record<Tier, readonly number[]>>;
  /** For each segment, how much of its seconds each bound is answerable for; they sum to 1. */
  readonly boundWeights: readonly (readonly number[])[];
}

const ONE = constant(1);

/** What is known before any program is solved. */
export const NO_PRICES: Prices = { memorySecondsPerByte: { gpu: [], cpu: [], disk: [] }, boundWeights: [] };

type RowDuals = Readonly<Record<string, number>>;

function weightsOf({ boundSeconds }: Segment, segment: number, duals: RowDuals): number[] {
  const weights = boundSeconds.map((_, bound) => Math.max(0, -(duals[secondsRowName(segment, bound)] ?? 0)));
  const total = weights.reduce((whole, weight) => whole + weight, 0);
  return total === 0 ? [] : weights.map((weight) => weight / total);
}

/** What the duals of a program built from `terms` say of memory and stages. */
export function pricesOf(terms: CostTerms, duals: RowDuals): Prices {
  const ofTier = (tier: Tier): number[] =>
    terms.peakBytes[tier].map((_, moment) => Math.max(0, -(duals[memoryRowName(tier, moment)] ?? 0)));
  return {
    memorySecondsPerByte: { gpu: ofTier('gpu'), cpu: ofTier('cpu'), disk: ofTier('disk') },
    boundWeights: terms.segments.map((segment, position) => weightsOf(segment, position, duals)),
  };
}

/** Of several lower bounds, the one that is highest where it is lowest. */
function bestSingleBound(domain: PlacementDomain, bounds: readonly Affine[]): Affine {
  let best = bounds[0]!;
  let highest = -Infinity;
  for (const bound of bounds) {
    const least = minimumOver(domain, bound);
    if (least > highest) [best, highest] = [bound, least];
  }
  return best;
}

type Weighted = readonly [factor: number, term: Affine];

function weighedSegment(
  domain: PlacementDomain,
  { boundSeconds }: Segment,
  count: number,
  weights: readonly number[] = [],
): Weighted[] {
  if (weights.length !== boundSeconds.length) return [[count, bestSingleBound(domain, boundSeconds)]];
  return boundSeconds.flatMap((bound, i): Weighted[] => (weights[i]! > 0 ? [[count * weights[i]!, bound]] : []));
}

/** Price x (peak - capacity): what breaking a capacity costs. */
function pricedMemory({ peakBytes, capacityBytes }: CostTerms, { memorySecondsPerByte }: Prices): Weighted[] {
  return TIERS.flatMap((tier) =>
    peakBytes[tier].flatMap((bytes, moment): Weighted[] => {
      const price = memorySecondsPerByte[tier][moment] ?? 0;
      return price === 0
        ? []
        : [
            [price, bytes],
            [-price * capacityBytes[tier], ONE],
          ];
    }),
  );
}

/**
 * Seconds that no placement of this shape goes below. Segments for which the prices have no weights count with their
 * best single bound. `times`: how often each counts.
 */
export function secondsBound(
  terms: CostTerms,
  domain: PlacementDomain,
  prices: Prices,
  times: (segment: Segment) => number = ({ count }) => count,
): number {
  const seconds = terms.segments.flatMap((segment, position) => {
    const count = times(segment);
    return count === 0 ? [] : weighedSegment(domain, segment, count, prices.boundWeights[position]);
  });
  return minimumOver(domain, weightedSum([...seconds, ...pricedMemory(terms, prices)]));
}

/** The same of one full block. */
export function blockSecondsBound(terms: CostTerms, domain: PlacementDomain, prices: Prices): number {
  return secondsBound(terms, domain, prices, ({ countInBlock }) => countInBlock);
}

/** Nearly all of the job, at a third of the work: the decoder layers but the last. */
export function roughSecondsBound(terms: CostTerms, domain: PlacementDomain, prices: Prices): number {
  return secondsBound(terms, domain, prices, ({ computes, count }) => (computes === 'decoder' ? count : 0));
}

/** Weighted bytes that are missing whatever the placement: above 0, nothing of this shape fits. */
export function shortfallBound(terms: CostTerms, domain: PlacementDomain, prices: Prices): number {
  return minimumOver(domain, weightedSum(pricedMemory(terms, prices)));
}

/** Whether one tier alone, or all together, can be seen to be too small, without solving anything. */
export function cannotFit(terms: CostTerms, domain: PlacementDomain): boolean {
  const excess = TIERS.map((tier) =>
    terms.peakBytes[tier].map((bytes) => sum(bytes, constant(-terms.capacityBytes[tier]))),
  );
  const isShort = (bytes: Affine): boolean => minimumOver(domain, bytes) > 0;
  if (excess.flat().some(isShort)) return true;
  const mostMoments = Math.max(...excess.map((moments) => moments.length));
  return Array.from({ length: mostMoments }, (_, moment) =>
    sum(...excess.map((moments) => moments[Math.min(moment, moments.length - 1)]!)),
  ).some(isShort);
}
