/** Policies run for real on made-up prompts, each beside what the cost model says of it. */
import { tmpdir } from 'node:os';
import { estimateRealised } from '../cost-model/estimate.js';
import { Engine, type RunResult, type Sequence } from '../engine/engine.js';
import type { ModelFolder } from '../engine/model-folder.js';
import { greedySequence } from '../engine/sequences.js';
import { FlexplanError } from '../errors.js';
import { realise } from '../policy/realisation.js';
import type { RunDocument } from '../report/run-document.js';
import type { Plan } from '../solver/plan.js';
import type { SequenceLength, Workload } from '../workload/workload.js';
import type { DeviceSettings } from './device.js';
import { runDocument } from './run-document.js';
import type { NamedPolicy } from './validation-policies.js';

export interface ValidationSetting {
  readonly folder: ModelFolder;
  readonly hardware: Plan['hardware'];
  /** With its sequences. */
  readonly workload: Workload;
  readonly device: DeviceSettings;
  readonly spillDirectory?: string | undefined;
  readonly signal: AbortSignal;
}

export interface ValidatedPolicy {
  readonly name: string;
  readonly run: RunDocument;
}

/** Of so many runs the one with the median time counts: the first ones warm up, and a neighbour may disturb one. */
const REPETITIONS = 5;

export async function validatePolicy(
  setting: ValidationSetting,
  { name, policy }: NamedPolicy,
): Promise<ValidatedPolicy> {
  const { folder, hardware, workload, device, spillDirectory = tmpdir(), signal } = setting;
  const { model } = folder;
  const engine = await Engine.open({ folder, policy, workload, ...device, spillDirectory, signal });
  try {
    const sequences = workload.sequences!.map((length, index) => sequenceOf(length, index, model.vocabSize));
    const runs: RunResult[] = [];
    for (let r = 0; r < REPETITIONS; r++) runs.push(await engine.run(sequences, { signal }));
    const realisation = realise(model, policy, workload, device.device);
    const run = runDocument({
      plan: { model, hardware, workload, policy },
      device: device.device,
      workload,
      realisation,
      predicted: estimateRealised(model, hardware.profile, workload, policy, realisation).whole(),
      run: medianRun(runs),
      environment: { ...hardware.profile.environment, node: process.version, date: new Date().toISOString() },
    });
    return { name, run };
  } catch (error) {
    if (!(error instanceof FlexplanError)) throw error;
    throw new FlexplanError(error.code, `policy "${name}": ${error.message}`);
  } finally {
    await engine.close();
  }
}

function medianRun(runs: readonly RunResult[]): RunResult {
  const seconds = ({ prefillSeconds, decodeSeconds }: RunResult) => prefillSeconds + decodeSeconds;
  return [...runs].sort((a, b) => seconds(a) - seconds(b))[runs.length >> 1]!;
}

/** Token ids that differ between sequences and places; what they mean does not matter. Runs to its full length. */
function sequenceOf({ promptTokens, genTokens }: SequenceLength, index: number, vocabSize: number): Sequence {
  const promptIds = Array.from({ length: promptTokens }, (_, t) => (37 * index + 11 * t) % vocabSize);
  return greedySequence(promptIds, genTokens);
}
