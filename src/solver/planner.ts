/** One job on one machine under one set of options: searching, explaining and assembling a plan. */
import { baselinePolicies } from '../cost-model/baselines/index.js';
import type { BatchShape } from '../cost-model/cost-terms.js';
import { estimateRealised } from '../cost-model/estimate.js';
import { weightIoAgainstLowerBound } from '../cost-model/io-bounds.js';
import { costTerms } from '../cost-model/terms.js';
import { capacityBytes, withCapacity } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import { realise } from '../policy/realisation.js';
import type { Workload } from '../workload/workload.js';
import { MILLISECONDS_PER_SECOND } from '../units.js';
import { alternativesTo } from './alternatives.js';
import { createGlpkSolver } from './glpk.js';
import { explainLatency, explainShortfall, type InfeasibleResult, type RemedyChange } from './infeasible.js';
import { jobSummary } from './job.js';
import type { LinearProgram, LinearSolution, LinearSolver } from './linear-program.js';
import type { OptimizeOptions } from './options.js';
import type { Plan, Sensitivity } from './plan.js';
import { search, type FoundPolicy, type JobModel, type SearchResult } from './search.js';
import { sensitivities } from './sensitivity.js';
import {
  batchShape,
  bitWidths,
  gpuBatchSizes,
  coarseShapes,
  fineShapes,
  neighbours,
  numsGpuBatches,
  refine,
} from './shapes.js';

/** What planning needs of its surroundings. */
export interface Surroundings {
  /** Default: GLPK's build for Node. */
  readonly solver: LinearSolver;
  /** Seconds on a clock that never goes back; only reported. */
  readonly clockSeconds: () => number;
}

/** What was given, the rest by default. */
export function surroundingsOf(given: Partial<Surroundings>): Surroundings {
  return { solver: createGlpkSolver(), clockSeconds: () => performance.now() / MILLISECONDS_PER_SECOND, ...given };
}

/** Adds up the time that solving takes. */
class TimedSolver implements LinearSolver {
  seconds = 0;

  constructor(private readonly surroundings: Surroundings) {}

  async solve(program: LinearProgram): Promise<LinearSolution> {
    const start = this.surroundings.clockSeconds();
    const solution = await this.surroundings.solver.solve(program);
    this.seconds += this.surroundings.clockSeconds() - start;
    return solution;
  }
}

function jobModel(model: ModelConfig, hardware: HardwareProfile, workload: Workload): JobModel {
  return {
    device: hardware.device,
    costTerms: (shape) => costTerms(model, hardware, workload, shape),
    estimateRealised: (policy) => estimateRealised(model, hardware, workload, policy),
  };
}

/** Rounds of refinement, each around so many of the best shapes. */
const MOST_REFINEMENTS = 4;
const REFINED_SHAPES = 2;

const shapeKey = ({ gpuBatchSize, numGpuBatches, weightBits, kvCacheBits }: BatchShape): string =>
  [gpuBatchSize, numGpuBatches, weightBits, kvCacheBits].join(' ');

/** One job on one machine under one set of options. */
export class Planner {
  readonly solver: TimedSolver;

  constructor(
    readonly model: ModelConfig,
    readonly hardware: HardwareProfile,
    readonly workload: Workload,
    readonly options: OptimizeOptions,
    readonly surroundings: Surroundings,
  ) {
    this.solver = new TimedSolver(surroundings);
  }

  modelOn(hardware: HardwareProfile): JobModel {
    return jobModel(this.model, hardware, this.workload);
  }

  /** The same with a remedy applied. */
  changed({ capacityBytes: capacity = {}, options = {} }: RemedyChange): Planner {
    const { model, hardware, workload, surroundings } = this;
    return new Planner(
      model,
      withCapacity(hardware, capacity),
      workload,
      { ...this.options, ...options },
      surroundings,
    );
  }

  /**
   * A coarse grid for all bit widths, a finer one for the best of them, then the shapes around its best until they stay
   * the best.
   */
  async search(objective: 'throughput' | 'latency', maxLatencySeconds: number): Promise<SearchResult> {
    const { workload, options, solver } = this;
    const problem = { job: this.modelOn(this.hardware), solver, maxLatencySeconds, objective };
    const tried = new Set<string>();
    const fresh = (shapes: readonly BatchShape[]): BatchShape[] =>
      shapes.filter((shape) => !tried.has(shapeKey(shape)) && tried.add(shapeKey(shape)));
    let result = await search({ ...problem, shapes: fresh(coarseShapes(workload, options)) });
    for (let round = 0; round <= MOST_REFINEMENTS && result.found[0]; round++) {
      const around = result.found.slice(0, REFINED_SHAPES).flatMap(({ shape }) => refine(shape, workload, options));
      const shapes = fresh(round === 0 ? fineShapes(workload, options, result.found[0].shape) : around);
      if (shapes.length > 0) result = await search({ ...problem, shapes, earlier: result });
    }
    return result;
  }

  /** The smallest batch shape for each choice of bit widths: memory only grows from there. */
  smallestShapes(): BatchShape[] {
    const { workload, options } = this;
    const gpuBatchSize = gpuBatchSizes(workload, options)[0]!;
    const numGpuBatches = numsGpuBatches(workload, options, gpuBatchSize)[0]!;
    return bitWidths(options).map((bits) => batchShape(gpuBatchSize, numGpuBatches, bits, options));
  }

  async isFeasible(): Promise<boolean> {
    const { maxLatencySeconds } = this.options;
    const problem = { job: this.modelOn(this.hardware), solver: this.solver, objective: 'latency' as const };
    const smallest = await search({ ...problem, maxLatencySeconds, shapes: this.smallestShapes() });
    if (smallest.found.length > 0 || maxLatencySeconds === Infinity) return smallest.found.length > 0;
    return (await this.search('latency', maxLatencySeconds)).found.length > 0;
  }

  async explainInfeasible(): Promise<InfeasibleResult> {
    if (this.options.maxLatencySeconds < Infinity) {
      const [fastest] = (await this.search('latency', Infinity)).found;
      if (fastest) return explainLatency(fastest.blockSeconds);
    }
    const job = this.modelOn(this.hardware);
    const feasible = (change: RemedyChange): Promise<boolean> => this.changed(change).isFeasible();
    return explainShortfall(job, this.hardware, this.options, this.smallestShapes(), this.solver, feasible);
  }

  async sensitivity(best: FoundPolicy): Promise<readonly Sensitivity[]> {
    const { maxLatencySeconds } = this.options;
    const shapes = neighbours(best.shape, this.workload, this.options);
    return sensitivities(best, shapes, this.hardware, (hw) => this.modelOn(hw), this.solver, maxLatencySeconds);
  }

  async plan(startSeconds: number, result: SearchResult, best: FoundPolicy): Promise<Plan> {
    const { model, hardware, workload } = this;
    const { policy, estimate: realised, terms } = best;
    const { placement, bytes } = realise(model, policy, workload, hardware.device);
    const relaxedGenTokensPerSecond = terms.genTokens / best.relaxedSeconds;
    const secondsOn = (changed: HardwareProfile): number =>
      this.modelOn(changed).estimateRealised(policy).totalSeconds();
    const sensitivity = await this.sensitivity(best);
    const { promptTokens, genTokens, numSequences, sharedPromptTokens } = workload;
    return {
      schemaVersion: 1,
      source: 'estimated',
      model,
      hardware: {
        name: hardware.name,
        device: hardware.device,
        capacityBytes: capacityBytes(hardware),
        profile: hardware,
      },
      workload: {
        promptTokens,
        genTokens,
        ...(numSequences !== undefined && { numSequences }),
        ...(sharedPromptTokens !== undefined && { sharedPromptTokens }),
      },
      policy,
      estimate: realised,
      realised: { placement, bytes },
      search: {
        status: 'optimal',
        programsSolved: result.programsSolved,
        candidates: result.candidates,
        prunedByBound: result.prunedByBound,
        infeasible: result.infeasible,
        failed: result.failed,
        seconds: this.surroundings.clockSeconds() - startSeconds,
        solvingSeconds: this.solver.seconds,
        relaxedGenTokensPerSecond,
        roundingLossFraction: 1 - realised.genTokensPerSecond / relaxedGenTokensPerSecond,
      },
      certificate: best.certificate,
      job: jobSummary(hardware, workload, best, secondsOn),
      weightIo: weightIoAgainstLowerBound(model, policy, workload, capacityBytes(hardware)),
      alternatives: alternativesTo(result.found, baselinePolicies(model, hardware, workload)),
      sensitivity,
    };
  }
}
