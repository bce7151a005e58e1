/**
 * What `run --json` prints: one measured run beside what the cost model had said of it. Documents: JSON of this shape.
 */
import type { Estimate, LinkBytes, StageSeconds } from '../cost-model/estimate-types.js';
import { documentCheck } from '../schema.js';
import type { Policy, TensorClass, TierBytes } from '../policy/policy.js';
import type { Device, Phase } from '../tiers.js';
import { runSchema } from './run-schema.js';

/** Relative errors of the prediction: (predicted - measured) / measured. */
export interface PredictionError {
  readonly prefillSeconds: number;
  readonly decodeSeconds: number;
  readonly totalSeconds: number;
  readonly genTokensPerSecond: number;
}

/** The parts of a plan that a report shows. */
interface ReportedPlan {
  readonly model: { readonly name: string };
  readonly hardware: { readonly name: string };
  readonly workload: { readonly promptTokens: number; readonly genTokens: number; readonly numSequences?: number };
  readonly policy: Policy;
}

export interface RunDocument {
  readonly schemaVersion: 1;
  readonly source: 'measured';
  readonly device: Device;
  readonly plan: ReportedPlan;
  readonly numSequences: number;
  /** Of all sequences together. */
  readonly promptTokens: number;
  /** Of all sequences together, as many as were really generated. */
  readonly genTokens: number;
  readonly numBlocks: number;
  /** Prompt tokens that were not computed, because another prompt begins with them. */
  readonly sharedPrefixTokens?: number;
  /** Tokens that all prompts begin with: the prediction counts on sharing these. */
  readonly sharedPromptTokens?: number;
  readonly prefillSeconds: number;
  readonly decodeSeconds: number;
  readonly totalSeconds: number;
  readonly genTokensPerSecond: number;
  readonly stageSeconds: Readonly<Record<Phase, StageSeconds>>;
  readonly trafficBytes: Readonly<Record<Phase, LinkBytes>>;
  readonly peakBytes: TierBytes;
  readonly capacityBytes: TierBytes;
  readonly placedBytes: Readonly<Record<TensorClass, TierBytes>>;
  /** Of the same sequences under the same policy. */
  readonly predicted: Estimate;
  readonly error: PredictionError;
  readonly environment: Readonly<Record<string, string | number>>;
}

export function relativeError(predicted: number, measured: number): number {
  return predicted === measured ? 0 : (predicted - measured) / measured;
}

/** A stored run. Throws `bad-input` with the path of the offending field. */
export const checkRunDocument = documentCheck<RunDocument>(runSchema, 'run', 'make it anew with flexplan run --json');
