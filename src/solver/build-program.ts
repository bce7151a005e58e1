/**
 * The cost terms of one batch shape as a linear program: minimise the seconds of the job over all placements that fit.
 * A maximum of terms becomes one variable above each of them; nothing is computed here that the estimate computes too.
 */
import {
  minus,
  PLACEMENT_VARIABLES,
  scale,
  sum,
  ZERO,
  type Affine,
  type PlacementVariable,
} from '../cost-model/affine.js';
import type { CostTerms } from '../cost-model/cost-terms.js';
import { TENSOR_CLASSES } from '../policy/policy.js';
import { TIERS, type Device, type Tier } from '../tiers.js';
import type { LinearProgram, LinearRow, LinearTerm, LinearVariable } from './linear-program.js';
import { minimumOver, placementVariable, type PlacementDomain } from './placements.js';

/** Attended share of the KV cache on a tier: the variable, and the fraction that caps it. */
const ATTENDED_SHARES: readonly { readonly variable: PlacementVariable; readonly tier: Tier }[] = [
  { variable: 'kvCpuAttended', tier: 'cpu' },
  { variable: 'kvDiskCpuAttended', tier: 'disk' },
];

/** Tiers without capacity take nothing; only a device beside the CPU leaves attention to it. */
export function placementDomain(terms: CostTerms, device: Device): PlacementDomain {
  return { tiers: TIERS.filter((tier) => terms.capacityBytes[tier] > 0), cpuAttention: device !== 'cpu' };
}

export const LATENCY_ROW = 'latency';
export const memoryRowName = (tier: Tier, moment: number): string => `memory.${tier}.${moment}`;
/** The tier whose capacity a row keeps to; undefined for other rows. */
export const memoryRowTier = (name: string): Tier | undefined =>
  TIERS.find((tier) => name.startsWith(`memory.${tier}.`));
export const secondsRowName = (segment: number, bound: number): string => `seconds.${segment}.${bound}`;
const secondsVariable = (segment: number): string => `seconds.${segment}`;

const linearTerms = ({ coefficients }: Affine): LinearTerm[] =>
  PLACEMENT_VARIABLES.flatMap((variable, v) => {
    const coefficient = coefficients[v]!;
    return coefficient === 0 ? [] : [{ variable, coefficient }];
  });

/**
 * Positions of the terms that may be the largest: one that another never falls below is left out (of equal ones the
 * first stays), so the maximum is the same over the whole domain.
 */
export function undominated(domain: PlacementDomain, terms: readonly Affine[]): number[] {
  const isDominated = (term: Affine, position: number): boolean =>
    terms.some((other, otherPosition) => {
      if (otherPosition === position) return false;
      const least = minimumOver(domain, minus(other, term));
      return least > 0 || (least === 0 && otherPosition < position);
    });
  return terms.flatMap((term, position) => (isDominated(term, position) ? [] : [position]));
}

/** The placement variables within the domain, priced by the coefficients of `seconds`. */
export function placementVariables(domain: PlacementDomain, seconds: Affine = ZERO): LinearVariable[] {
  const allowed = new Set<string>(
    TENSOR_CLASSES.flatMap((tensorClass) => domain.tiers.map((tier) => placementVariable(tensorClass, tier))),
  );
  for (const { variable, tier } of ATTENDED_SHARES) {
    if (domain.cpuAttention && domain.tiers.includes(tier)) allowed.add(variable);
  }
  return PLACEMENT_VARIABLES.map((name, v) => ({
    name,
    lower: 0,
    upper: allowed.has(name) ? 1 : 0,
    cost: seconds.coefficients[v]!,
  }));
}

/** Each class is placed whole; no more KV cache is attended than is there. */
export function domainRows(): LinearRow[] {
  const whole = TENSOR_CLASSES.map((tensorClass) => ({
    name: `whole.${tensorClass}`,
    terms: TIERS.map((tier) => ({ variable: placementVariable(tensorClass, tier), coefficient: 1 })),
    lower: 1,
    upper: 1,
  }));
  const attended = ATTENDED_SHARES.map(({ variable, tier }) => ({
    name: `attended.${tier}`,
    terms: [
      { variable, coefficient: 1 },
      { variable: placementVariable('kvCache', tier), coefficient: -1 },
    ],
    lower: -Infinity,
    upper: 0,
  }));
  return [...whole, ...attended];
}

/** Peak bytes of every moment within the capacity. */
export function memoryRows(terms: CostTerms, domain: PlacementDomain): LinearRow[] {
  return TIERS.flatMap((tier) =>
    undominated(domain, terms.peakBytes[tier]).map((moment) => {
      const bytes = terms.peakBytes[tier][moment]!;
      return {
        name: memoryRowName(tier, moment),
        terms: linearTerms(bytes),
        lower: -Infinity,
        upper: terms.capacityBytes[tier] - bytes.constant,
      };
    }),
  );
}

/** The seconds of the job and of one block: what is affine, and what is a maximum with a variable of its own. */
interface JobSeconds {
  affine: Affine;
  affineInBlock: Affine;
  readonly variables: LinearVariable[];
  /** Each maximum as often as one block has it. */
  readonly inBlock: LinearTerm[];
  readonly rows: LinearRow[];
}

function jobSeconds(terms: CostTerms, domain: PlacementDomain): JobSeconds {
  const job: JobSeconds = { affine: ZERO, affineInBlock: ZERO, variables: [], inBlock: [], rows: [] };
  terms.segments.forEach(({ count, countInBlock, boundSeconds }, segment) => {
    const kept = undominated(domain, boundSeconds);
    if (kept.length === 1) {
      job.affine = sum(job.affine, scale(count, boundSeconds[kept[0]!]!));
      job.affineInBlock = sum(job.affineInBlock, scale(countInBlock, boundSeconds[kept[0]!]!));
      return;
    }
    const name = secondsVariable(segment);
    job.variables.push({ name, lower: 0, upper: Infinity, cost: count });
    job.inBlock.push({ variable: name, coefficient: countInBlock });
    for (const bound of kept) {
      const seconds = boundSeconds[bound]!;
      job.rows.push({
        name: secondsRowName(segment, bound),
        terms: [{ variable: name, coefficient: -1 }, ...linearTerms(seconds)],
        lower: -Infinity,
        upper: -seconds.constant,
      });
    }
  });
  return job;
}

function latencyRow({ affineInBlock, inBlock }: JobSeconds, maxLatencySeconds: number): LinearRow[] {
  if (maxLatencySeconds === Infinity) return [];
  const terms = [...linearTerms(affineInBlock), ...inBlock];
  return [{ name: LATENCY_ROW, terms, lower: -Infinity, upper: maxLatencySeconds - affineInBlock.constant }];
}

/**
 * Objective: seconds of the job, of which a full block may take at most `maxLatencySeconds`. Values: the placement
 * variables (and the seconds of one run of each segment).
 */
export function buildProgram(terms: CostTerms, domain: PlacementDomain, maxLatencySeconds = Infinity): LinearProgram {
  const seconds = jobSeconds(terms, domain);
  return {
    name: 'placement',
    objectiveConstant: seconds.affine.constant,
    variables: [...placementVariables(domain, seconds.affine), ...seconds.variables],
    rows: [...domainRows(), ...memoryRows(terms, domain), ...seconds.rows, ...latencyRow(seconds, maxLatencySeconds)],
  };
}
