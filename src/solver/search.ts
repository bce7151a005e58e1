/**
 * Over all batch shapes and bit widths, the realised policy with the least seconds per generated token. Best first:
 * each candidate carries a proven lower bound, each solved program leaves prices that raise the bounds of the others,
 * and the search ends when no bound is below the best policy found. Pure: no clock, no randomness, ties go to the
 * earlier shape.
 */
import type { BatchShape, CostTerms } from '../cost-model/cost-terms.js';
import type { RealisedEstimate } from '../cost-model/estimate.js';
import type { Policy } from '../policy/policy.js';
import type { Device } from '../tiers.js';
import { buildProgram, placementDomain } from './build-program.js';
import { certify, type Certificate } from './certificate.js';
import { solveElastic } from './elastic.js';
import type { LinearSolver, OptimalSolution } from './linear-program.js';
import type { PlacementDomain } from './placements.js';
import {
  blockSecondsBound,
  cannotFit,
  NO_PRICES,
  pricesOf,
  roughSecondsBound,
  secondsBound,
  shortfallBound,
  type Prices,
} from './prices.js';
import { roundToSlices, type RealisedPolicy } from './round.js';

/** What the search asks about a job on a machine. */
export interface JobModel {
  readonly device: Device;
  costTerms(shape: BatchShape): CostTerms;
  /** Of the policy as whole rows and whole sequences. */
  estimateRealised(policy: Policy): RealisedEstimate;
}

export interface SearchProblem {
  readonly job: JobModel;
  readonly solver: LinearSolver;
  /** In the order in which ties are broken. */
  readonly shapes: readonly BatchShape[];
  /** Of one full block. */
  readonly maxLatencySeconds: number;
  /** `latency` looks for the least seconds of one full block instead. */
  readonly objective: 'throughput' | 'latency';
  /** What an earlier search over other shapes of the same job has found. */
  readonly earlier?: SearchResult;
}

/** A shape whose program was solved and whose policy was realised. */
export interface FoundPolicy extends RealisedPolicy {
  readonly shape: BatchShape;
  readonly terms: CostTerms;
  readonly relaxedSeconds: number;
  /** What is minimised: seconds for each generated token, or seconds of one full block. */
  readonly score: number;
  readonly solution: OptimalSolution;
  readonly certificate: Certificate;
}

export interface SearchResult {
  /** Best first; empty when nothing fits. */
  readonly found: readonly FoundPolicy[];
  readonly programsSolved: number;
  readonly candidates: number;
  readonly prunedByBound: number;
  readonly infeasible: number;
  /** What the solved programs say of others: see `prices.ts`. */
  readonly prices: readonly Prices[];
  /** Candidates on whose program the solver gave up: the only ones about which nothing is proven. */
  readonly failed: number;
}

/** A policy that is better by less is not worth another program: far below the error of any estimate. */
const WORTHWHILE_FRACTION = 5e-4;

interface Candidate {
  readonly shape: BatchShape;
  readonly terms: CostTerms;
  readonly domain: PlacementDomain;
  /** Lower bound of the score. */
  bound: number;
  pricesSeen: number;
}

/** Counts what it passes on. */
class CountingSolver implements LinearSolver {
  programsSolved = 0;

  constructor(private readonly solver: LinearSolver) {}

  solve(program: Parameters<LinearSolver['solve']>[0]): ReturnType<LinearSolver['solve']> {
    this.programsSolved += 1;
    return this.solver.solve(program);
  }
}

class Search {
  readonly solver: CountingSolver;
  readonly found: FoundPolicy[];
  readonly prices: Prices[];
  infeasible = 0;
  failed = 0;

  constructor(readonly problem: SearchProblem) {
    this.solver = new CountingSolver(problem.solver);
    this.found = [...(problem.earlier?.found ?? [])];
    this.prices = [...(problem.earlier?.prices ?? [])];
  }

  /** Seconds for each generated token: what is minimised, but where latency is. */
  score(seconds: number, { genTokens }: CostTerms): number {
    return seconds / genTokens;
  }

  /** Of a shape, with the prices of some program. */
  boundOf({ terms, domain }: Pick<Candidate, 'terms' | 'domain'>, prices: Prices): number {
    if (this.problem.objective === 'latency') return blockSecondsBound(terms, domain, prices);
    const rough = this.score(roughSecondsBound(terms, domain, prices), terms);
    const isSettled = prices === NO_PRICES || rough >= this.bestScore;
    return isSettled ? rough : this.score(secondsBound(terms, domain, prices), terms);
  }

  get bestScore(): number {
    return this.found[0]?.score ?? Infinity;
  }

  /** Whether a score would be noticeably better than the best so far. */
  isWorthwhile(score: number): boolean {
    return score < this.bestScore * (1 - WORTHWHILE_FRACTION);
  }

  /**
   * Shapes that may fit. Memory only grows with the batch shape, so what is larger than a shape that cannot fit is not
   * even looked at.
   */
  candidates(): Candidate[] {
    const { job, shapes } = this.problem;
    const tooLarge: BatchShape[] = [];
    return shapes.flatMap((shape) => {
      if (tooLarge.some((limit) => isAtLeast(shape, limit))) return [];
      const terms = job.costTerms(shape);
      const domain = placementDomain(terms, job.device);
      if (cannotFit(terms, domain)) {
        tooLarge.push(shape);
        return [];
      }
      return [{ shape, terms, domain, bound: this.boundOf({ terms, domain }, NO_PRICES), pricesSeen: 0 }];
    });
  }

  /**
   * Applies the prices found since the last look, the newest first (they come from the best shapes), until the
   * candidate cannot win. A bound of Infinity: nothing of this shape fits, or not in time.
   */
  raiseBound(candidate: Candidate): void {
    const { terms, domain, pricesSeen } = candidate;
    candidate.pricesSeen = this.prices.length;
    for (let i = this.prices.length - 1; i >= pricesSeen && candidate.bound < this.bestScore; i--) {
      const prices = this.prices[i]!;
      const cannotBe = this.isTooSlow(candidate, prices) || shortfallBound(terms, domain, prices) > 0;
      candidate.bound = cannotBe ? Infinity : Math.max(candidate.bound, this.boundOf(candidate, prices));
    }
  }

  isTooSlow({ terms, domain }: Candidate, prices: Prices): boolean {
    const { maxLatencySeconds } = this.problem;
    return maxLatencySeconds < Infinity && blockSecondsBound(terms, domain, prices) > maxLatencySeconds;
  }

  async solve({ shape, terms, domain }: Candidate): Promise<void> {
    const { job, maxLatencySeconds } = this.problem;
    const program = buildProgram(terms, domain, maxLatencySeconds);
    const solution = await this.solver.solve(program);
    if (solution.status === 'infeasible') {
      this.infeasible += 1;
      const elastic = await solveElastic(this.solver, terms, domain);
      if (elastic) this.prices.push(pricesOf(terms, elastic.rowDuals));
      return;
    }
    if (solution.status !== 'optimal') {
      this.failed += 1;
      return;
    }
    const prices = pricesOf(terms, solution.rowDuals);
    this.prices.push(prices);
    if (!this.isWorthwhile(this.boundOf({ terms, domain }, prices))) return;
    const rounding = { shape, terms, domain, program, maxLatencySeconds, solver: this.solver };
    const realised = await roundToSlices(
      { ...rounding, estimateRealised: (policy) => job.estimateRealised(policy) },
      solution,
    );
    if (!realised) {
      this.infeasible += 1;
      return;
    }
    const certificate = certify(program, solution);
    const score =
      this.problem.objective === 'latency' ? realised.blockSeconds : this.score(realised.estimate.totalSeconds, terms);
    this.add({ ...realised, shape, terms, solution, certificate, relaxedSeconds: solution.objective, score });
  }

  add(found: FoundPolicy): void {
    const position = this.found.findIndex(({ score }) => found.score < score);
    this.found.splice(position === -1 ? this.found.length : position, 0, found);
  }
}

function isAtLeast(shape: BatchShape, other: BatchShape): boolean {
  return (
    shape.weightBits === other.weightBits &&
    shape.kvCacheBits === other.kvCacheBits &&
    shape.gpuBatchSize >= other.gpuBatchSize &&
    shape.numGpuBatches >= other.numGpuBatches
  );
}

function takeLowest(candidates: Candidate[]): Candidate | undefined {
  let lowest = 0;
  candidates.forEach(({ bound }, i) => {
    if (bound < candidates[lowest]!.bound) lowest = i;
  });
  return candidates.splice(lowest, 1)[0];
}

/** The best realised policy over all shapes, the others that were realised on the way, and what it took. */
export async function search(problem: SearchProblem): Promise<SearchResult> {
  const run = new Search(problem);
  const candidates = problem.shapes.length;
  const open = run.candidates();
  run.infeasible = candidates - open.length;
  let prunedByBound = 0;
  for (let next = takeLowest(open); next; next = takeLowest(open)) {
    const before = next.bound;
    run.raiseBound(next);
    const raised = next.bound;
    if (raised === Infinity) run.infeasible += 1;
    else if (!run.isWorthwhile(raised)) prunedByBound += 1;
    else if (raised > before && open.some(({ bound }) => bound < raised)) open.push(next);
    else await run.solve(next);
  }
  const { earlier } = problem;
  return {
    found: run.found,
    prices: run.prices,
    programsSolved: run.solver.programsSolved + (earlier?.programsSolved ?? 0),
    candidates: candidates + (earlier?.candidates ?? 0),
    prunedByBound: prunedByBound + (earlier?.prunedByBound ?? 0),
    infeasible: run.infeasible + (earlier?.infeasible ?? 0),
    failed: run.failed + (earlier?.failed ?? 0),
  };
}
