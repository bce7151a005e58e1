/**
 * Where prediction and measurement meet: the engine's run beside the cost model's estimate of the very same sequences.
 */
import type { Estimate } from '../cost-model/estimate-types.js';
import type { EngineOptions, RunResult } from '../engine/engine.js';
import { capacityBytes } from '../hardware/check-profile.js';
import type { Realisation } from '../policy/realisation.js';
import { relativeError, type PredictionError, type RunDocument } from '../report/run-document.js';
import type { Plan } from '../solver/plan.js';
import type { Workload } from '../workload/workload.js';

/** What was run: a plan, or as much of one as a measurement can be set against. */
type MeasuredPlan = RunDocument['plan'] & Pick<Plan, 'hardware'>;

export interface MeasuredJob<P extends MeasuredPlan> {
  readonly plan: P;
  readonly device: EngineOptions['device'];
  readonly workload: Workload;
  readonly realisation: Realisation;
  readonly predicted: Estimate;
  readonly run: RunResult;
  readonly environment: Readonly<Record<string, string | number>>;
}

type Times = Pick<RunDocument, keyof PredictionError>;

function errorOf(predicted: Times, measured: Times): PredictionError {
  const of = (name: keyof PredictionError) => relativeError(predicted[name], measured[name]);
  return {
    prefillSeconds: of('prefillSeconds'),
    decodeSeconds: of('decodeSeconds'),
    totalSeconds: of('totalSeconds'),
    genTokensPerSecond: of('genTokensPerSecond'),
  };
}

function timesOf(run: RunResult, genTokens: number): Times {
  const { prefillSeconds, decodeSeconds } = run;
  const totalSeconds = prefillSeconds + decodeSeconds;
  return { prefillSeconds, decodeSeconds, totalSeconds, genTokensPerSecond: genTokens / totalSeconds };
}

export function runDocument<P extends MeasuredPlan>({
  plan,
  run,
  predicted,
  ...job
}: MeasuredJob<P>): RunDocument & { readonly plan: P } {
  const sequences = job.workload.sequences!;
  const genTokens = run.sequences.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
  const times = timesOf(run, genTokens);
  return {
    schemaVersion: 1,
    source: 'measured',
    device: job.device,
    numSequences: sequences.length,
    promptTokens: sequences.reduce((sum, { promptTokens }) => sum + promptTokens, 0),
    genTokens,
    numBlocks: run.numBlocks,
    sharedPrefixTokens: run.sharedPrefixTokens,
    ...(job.workload.sharedPromptTokens !== undefined && { sharedPromptTokens: job.workload.sharedPromptTokens }),
    ...times,
    stageSeconds: run.stageSeconds,
    trafficBytes: run.trafficBytes,
    peakBytes: run.peakBytes,
    capacityBytes: capacityBytes(plan.hardware.profile),
    placedBytes: {
      weights: job.realisation.bytes.weights,
      kvCache: run.kvCacheBytes,
      activations: run.activationBytes,
    },
    predicted,
    error: errorOf(predicted, times),
    environment: job.environment,
    plan,
  };
}
