/**
 * When no policy fits: which tier lacks how many bytes, and the changes of which each one alone makes the job feasible.
 */
import type { BatchShape } from '../cost-model/cost-terms.js';
import { capacityBytes, hasGpuTier } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import { TIERS, type Tier } from '../tiers.js';
import { formatBytes, formatSeconds, GIB, KIB, MIB, TIB } from '../units.js';
import { placementDomain } from './build-program.js';
import { solveElastic, type ElasticSolution } from './elastic.js';
import type { LinearSolver } from './linear-program.js';
import type { OptimizeOptions } from './options.js';
import type { JobModel } from './search.js';

interface Shortfall {
  readonly tier: Tier;
  readonly missingBytes: number;
}

/** What to change; with it the same call succeeds. */
export interface RemedyChange {
  /** Capacity that the tier needs in all: of the machine, and of the cap where one is set. */
  readonly capacityBytes?: Partial<Record<Tier, number>>;
  readonly options?: Partial<OptimizeOptions>;
}

export interface InfeasibleResult {
  readonly status: 'infeasible';
  /** Of the smallest batch shape that the options allow. Empty when only the latency limit is in the way. */
  readonly shortfall: readonly Shortfall[];
  /** In words, the least intrusive first. */
  readonly remedies: readonly string[];
  /** The same for programs, in the same order. */
  readonly changes: readonly RemedyChange[];
}

interface Remedy {
  readonly words: string;
  readonly change: RemedyChange;
}

/** Whether the job is feasible with this change. */
export type Trial = (change: RemedyChange) => Promise<boolean>;

const TIER_WORDS: Readonly<Record<Tier, string>> = { gpu: 'GPU memory', cpu: 'RAM', disk: 'disk' };
const CAP_FLAGS: Readonly<Record<Tier, string>> = { gpu: '--gpu-memory', cpu: '--cpu-memory', disk: '--disk' };

const machineTiers = (hardware: HardwareProfile): Tier[] =>
  TIERS.filter((tier) => tier !== 'gpu' || hasGpuTier(hardware));

/**
 * Whole rows and sequences may need more than fractions do: tried are the missing bytes and a little more, then ever
 * larger parts of the machine (a job may fit as fractions and not as whole sequences, with no byte missing).
 */
const EXTRA_OF_MISSING = [0.001, 0.01, 0.03];
const EXTRA_OF_MACHINE = [0.003, 0.03, 0.3, 3];

const SIGNIFICANT_DIGITS = 3;

/** Rounded up to a size that `formatBytes` writes out in full, so that what is printed is enough. */
function presentable(bytes: number): number {
  const unit = [TIB, GIB, MIB, KIB].find((size) => bytes >= size) ?? 1;
  const step = unit * 10 ** (Math.floor(Math.log10(bytes / unit)) + 1 - SIGNIFICANT_DIGITS);
  return Math.ceil(Math.ceil(bytes / step) * step);
}

interface CapacityRemedy extends Remedy {
  readonly added: readonly Shortfall[];
}

/** More of `tiers`, each by what it misses and as little more as helps. */
async function capacityRemedy(
  tiers: readonly Tier[],
  capacity: Readonly<Record<Tier, number>>,
  missingBytes: Readonly<Record<Tier, number>>,
  feasible: Trial,
): Promise<CapacityRemedy | undefined> {
  const machineBytes = TIERS.reduce((sum, tier) => sum + capacity[tier] + missingBytes[tier], 0);
  const extras: readonly ((missing: number) => number)[] = [
    ...EXTRA_OF_MISSING.map((part) => (missing: number) => part * missing),
    ...EXTRA_OF_MACHINE.map((part) => () => part * machineBytes),
  ];
  for (const extra of extras) {
    const wanted = tiers.map((tier) => {
      const bytes = presentable(capacity[tier] + missingBytes[tier] + Math.max(1, extra(missingBytes[tier])));
      return { tier, bytes, missingBytes: bytes - capacity[tier] };
    });
    const change = { capacityBytes: Object.fromEntries(wanted.map(({ tier, bytes }) => [tier, bytes])) };
    if (await feasible(change)) return { words: capacityWords(wanted), change, added: wanted };
  }
  return undefined;
}

function capacityWords(wanted: readonly (Shortfall & { readonly bytes: number })[]): string {
  const parts = wanted.map(
    ({ tier, bytes, missingBytes }) =>
      `${formatBytes(missingBytes)} more ${TIER_WORDS[tier]}: ${formatBytes(bytes)} in all (${CAP_FLAGS[tier]}, if the machine has it)`,
  );
  return `give it ${parts.join(', and ')}`;
}

function optionRemedies({ weightBits, kvCacheBits, gpuBatchSize, numGpuBatches }: OptimizeOptions): Remedy[] {
  const remedy = (words: string, options: Partial<OptimizeOptions>): Remedy => ({ words, change: { options } });
  return [
    ...(gpuBatchSize === 'auto' || gpuBatchSize === 1
      ? []
      : [remedy('leave the GPU batch size open (drop --gpu-batch-size)', { gpuBatchSize: 'auto' })]),
    ...(numGpuBatches === 'auto' || numGpuBatches === 1
      ? []
      : [remedy('leave the number of GPU batches open (drop --num-gpu-batches)', { numGpuBatches: 'auto' })]),
    ...(kvCacheBits === 16 ? [remedy('store the KV cache in 4 bits (--kv-bits 4)', { kvCacheBits: 4 })] : []),
    ...(weightBits === 16 ? [remedy('store the weights in 4 bits (--weight-bits 4)', { weightBits: 4 })] : []),
    ...(weightBits === 16 && kvCacheBits === 16
      ? [
          remedy('store weights and KV cache in 4 bits (--weight-bits 4 --kv-bits 4)', {
            weightBits: 4,
            kvCacheBits: 4,
          }),
        ]
      : []),
  ];
}

interface Missing {
  readonly job: JobModel;
  readonly shape: BatchShape;
  readonly solution: ElasticSolution;
}

const totalMissing = ({ solution }: Missing): number =>
  TIERS.reduce((sum, tier) => sum + solution.missingBytes[tier], 0);

async function leastMissing(
  job: JobModel,
  shapes: readonly BatchShape[],
  tiers: readonly Tier[],
  solver: LinearSolver,
): Promise<Missing | undefined> {
  let least: Missing | undefined;
  for (const shape of shapes) {
    const terms = job.costTerms(shape);
    const domain = { ...placementDomain(terms, job.device) };
    const growing = { ...domain, tiers: TIERS.filter((tier) => domain.tiers.includes(tier) || tiers.includes(tier)) };
    const solution = await solveElastic(solver, terms, growing, tiers);
    const missing = solution && { job, shape, solution };
    if (missing && (!least || totalMissing(missing) < totalMissing(least))) least = missing;
  }
  return least;
}

/** `smallestShapes`: the smallest batch shape for each choice of bit widths that the options leave open. */
export async function explainShortfall(
  job: JobModel,
  hardware: HardwareProfile,
  options: OptimizeOptions,
  smallestShapes: readonly BatchShape[],
  solver: LinearSolver,
  feasible: Trial,
): Promise<InfeasibleResult> {
  const capacity = capacityBytes(hardware);
  const tiers = machineTiers(hardware);
  const used = tiers.filter((tier) => capacity[tier] > 0);
  const together =
    (await leastMissing(job, smallestShapes, used, solver)) ?? (await leastMissing(job, smallestShapes, tiers, solver));
  const capacityRemedies: CapacityRemedy[] = [];
  const tryTiers = async (growing: readonly Tier[]): Promise<void> => {
    const missing = await leastMissing(job, smallestShapes, growing, solver);
    const remedy = missing && (await capacityRemedy(growing, capacity, missing.solution.missingBytes, feasible));
    if (remedy) capacityRemedies.push(remedy);
  };
  for (const tier of [...tiers].reverse()) await tryTiers([tier]);
  if (capacityRemedies.length === 0) await tryTiers(tiers.filter((tier) => tier !== 'disk'));
  const remedies: Remedy[] = [];
  for (const remedy of optionRemedies(options)) if (await feasible(remedy.change)) remedies.push(remedy);
  remedies.push(...capacityRemedies);
  return {
    status: 'infeasible',
    shortfall: shortfallOf(together, capacityRemedies),
    remedies: remedies.map(({ words }) => words),
    changes: remedies.map(({ change }) => change),
  };
}

/** Bytes missing as fractions; where only whole rows and sequences do not fit, the least that makes them. */
function shortfallOf(missing: Missing | undefined, remedies: readonly CapacityRemedy[]): Shortfall[] {
  const asFractions = TIERS.flatMap((tier) => {
    const missingBytes = Math.ceil(missing?.solution.missingBytes[tier] ?? 0);
    return missingBytes > 0 ? [{ tier, missingBytes }] : [];
  });
  if (asFractions.length > 0) return asFractions;
  const size = ({ added }: CapacityRemedy): number => added.reduce((sum, { missingBytes }) => sum + missingBytes, 0);
  const [least] = [...remedies].sort((a, b) => size(a) - size(b));
  return (least?.added ?? []).map(({ tier, missingBytes }) => ({ tier, missingBytes }));
}

/** Everything fits, but not in time: the answer names the time in which it does. */
export function explainLatency(leastSeconds: number): InfeasibleResult {
  const maxLatencySeconds = Math.ceil(leastSeconds * 1.001 * 1e3) / 1e3;
  return {
    status: 'infeasible',
    shortfall: [],
    remedies: [
      `allow ${formatSeconds(maxLatencySeconds)} (--max-latency-seconds ${maxLatencySeconds}): no policy that fits takes less than ${formatSeconds(leastSeconds)}`,
    ],
    changes: [{ options: { maxLatencySeconds } }],
  };
}
