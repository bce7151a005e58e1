/**
 * Runs that somebody measured, as the cost model can be asked about them: to fit a profile's constants, or to check
 * them.
 */
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import { blockSize, type Policy } from '../policy/policy.js';
import type { Workload } from '../workload/workload.js';
import { estimate } from './estimate.js';

/** Throughputs are of one block: genTokens (decode: genTokens - 1) tokens a sequence over all (decode) seconds. */
export const OBSERVED_QUANTITIES = [
  'genTokensPerSecond',
  'decodeTokensPerSecond',
  'prefillSeconds',
  'decodeSeconds',
  'totalSeconds',
] as const;
export type ObservedQuantity = (typeof OBSERVED_QUANTITIES)[number];

export interface Observation {
  readonly name: string;
  readonly model: ModelConfig;
  readonly workload: Workload;
  /** As it really ran, which may differ from what was asked for. */
  readonly policy: Policy;
  /** The run was stopped after so many decode steps and these were projected to all. Absent: it ran to its end. */
  readonly decodeStepsTimed?: number;
  readonly quantity: ObservedQuantity;
  readonly value: number;
  /** The unit of the last digit given: the value is known to half of it. 0: exactly. */
  readonly resolution: number;
}

/** What the cost model says the observer would have seen. */
export function predictObservation(hardware: HardwareProfile, observation: Observation): number {
  const { workload, policy, quantity } = observation;
  const { prefillSeconds, decodeSeconds, genTokens } = predictedRun(hardware, observation);
  const sequences = workload.sequences?.length ?? workload.numSequences ?? blockSize(policy);
  const answers: Record<ObservedQuantity, number> = {
    genTokensPerSecond: genTokens / (prefillSeconds + decodeSeconds),
    decodeTokensPerSecond: (genTokens - sequences) / decodeSeconds,
    prefillSeconds,
    decodeSeconds,
    totalSeconds: prefillSeconds + decodeSeconds,
  };
  return answers[quantity];
}

function predictedRun(hardware: HardwareProfile, { model, workload, policy, decodeStepsTimed }: Observation) {
  const decodeSteps = workload.genTokens - 1;
  if (decodeStepsTimed === undefined || decodeStepsTimed >= decodeSteps) {
    const { prefillSeconds, decodeSeconds, genTokensPerSecond, totalSeconds } = estimate(
      model,
      hardware,
      workload,
      policy,
    );
    return { prefillSeconds, decodeSeconds, genTokens: genTokensPerSecond * totalSeconds };
  }
  const { promptTokens, genTokens, numSequences = blockSize(policy) } = workload;
  const stopped = { promptTokens, genTokens: decodeStepsTimed + 1, numSequences };
  const { prefillSeconds, decodeSeconds } = estimate(model, hardware, stopped, policy);
  return {
    prefillSeconds,
    decodeSeconds: (decodeSeconds / decodeStepsTimed) * decodeSteps,
    genTokens: numSequences * genTokens,
  };
}

/** ln(predicted / observed), observed being the nearest value that would have been given with the same digits. */
export function logError(predicted: number, { value, resolution }: Pick<Observation, 'value' | 'resolution'>): number {
  const nearest = Math.min(Math.max(predicted, value - resolution / 2), value + resolution / 2);
  return Math.log(predicted / nearest);
}
