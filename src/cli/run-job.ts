/**
 * A prompt file through a plan: checked, run with progress, and set against the prediction for the very same sequences.
 */
import { mkdirSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { readPromptFile, sequenceOf, workloadOfRequests, type PreparedRequest } from '../batch/prompt-file.js';
import { runBatch, type BatchProgress } from '../batch/run-batch.js';
import { estimateRealised } from '../cost-model/estimate.js';
import type { RunResult } from '../engine/engine.js';
import { workloadOf } from '../engine/generate.js';
import { openModelFolder, type ModelFolder } from '../engine/model-folder.js';
import { loadTokenizer } from '../engine/tokenizer.js';
import { realise } from '../policy/realisation.js';
import type { RunDocument } from '../report/run-document.js';
import type { Plan } from '../solver/plan.js';
import { formatSeconds } from '../units.js';
import type { Context } from './command.js';
import { quantizationCache, type DeviceRequest, type DeviceSettings } from './device.js';
import { recentRate, startProgress } from './progress.js';
import { checkLengths, checkSameModel, planDevice } from './run-checks.js';
import { runDocument } from './run-document.js';

export interface JobRequest extends DeviceRequest {
  readonly input: string;
  readonly output: string;
  readonly overwrite?: boolean | undefined;
  /** Where KV cache and 4-bit weights of the disk tier go: beside the output unless said otherwise. */
  readonly spillDir?: string | undefined;
  readonly quantizationCache?: boolean | undefined;
  readonly quantizationCacheLimit?: number | undefined;
}

export interface FinishedJob {
  readonly resumedRequests: number;
  readonly badRequests: number;
  /** Absent when an earlier run had finished everything. */
  readonly document?: RunDocument;
  readonly run?: RunResult;
}

/** Runs what is not finished yet. `trace` records every task. */
export async function runJob(
  plan: Plan,
  modelPath: string,
  request: JobRequest,
  trace: boolean,
  context: Context,
): Promise<FinishedJob> {
  const folder = await openModelFolder(modelPath);
  checkSameModel(plan.model, folder.model);
  const tokenizer = await loadTokenizer(folder.path);
  const prompts = await readPromptFile(request.input, folder.model, tokenizer);
  checkLengths(plan, workloadOfRequests(prompts, folder.model));
  const device = await planDevice(plan, request);
  noteOtherDevice(plan, device, context);
  mkdirSync(dirname(resolve(request.output)), { recursive: true });
  const report = progressReporter(prompts.requests);
  const { run, requests, ...counts } = await runBatch({
    prompts,
    ...(tokenizer && { tokenizer }),
    outputPath: request.output,
    overwrite: request.overwrite ?? false,
    engine: {
      folder,
      policy: plan.policy,
      ...device,
      ...quantizationCache(request),
      spillDirectory: resolve(request.spillDir ?? dirname(request.output)),
      trace,
      signal: context.signal,
    },
    onProgress: report.update,
  }).finally(() => report.stop());
  return run ? { ...counts, run, document: measuredJob(plan, folder, requests, device, run) } : counts;
}

function measuredJob(
  plan: Plan,
  folder: ModelFolder,
  requests: readonly PreparedRequest[],
  { device }: DeviceSettings,
  run: RunResult,
): RunDocument {
  const workload = workloadOf(requests.map((request) => sequenceOf(request, folder.model)));
  const realisation = realise(folder.model, plan.policy, workload, device);
  const { profile } = plan.hardware;
  return runDocument({
    plan,
    device,
    workload,
    realisation,
    predicted: estimateRealised(folder.model, profile, workload, plan.policy, realisation).whole(),
    run,
    environment: { ...profile.environment, node: process.version, date: new Date().toISOString() },
  });
}

function noteOtherDevice({ hardware }: Plan, { device }: DeviceSettings, context: Context): void {
  if (device !== hardware.device)
    context.note(
      `The plan was made for ${hardware.device} (${hardware.name}); on ${device} its prediction does not hold.`,
    );
}

/** Tokens generated so far, of the most that there can be; sequences may end sooner. */
function progressReporter(requests: readonly PreparedRequest[]) {
  const most = requests.reduce((sum, { maxTokens }) => sum + maxTokens, 0);
  const progress = startProgress('running', most);
  const rateAt = recentRate();
  return {
    update: ({ genTokens, finishedRequests, totalRequests }: BatchProgress): void => {
      const rate = rateAt(genTokens);
      const left = rate === undefined || genTokens >= most ? '' : `, ${formatSeconds((most - genTokens) / rate)} left`;
      const speed = rate === undefined ? '' : `, ${Math.round(rate)} tok/s${left}`;
      progress.update(genTokens, `${finishedRequests}/${totalRequests} prompts${speed}`);
    },
    stop: () => progress.stop(),
  };
}
