/**
 * What the cost model says of one batch shape, still open in the placement: the terms of the estimate and of the LP
 * alike.
 */
import type { Policy } from '../policy/policy.js';
import type { Link, Phase, StageName, Tier } from '../tiers.js';
import { sum, type Affine } from './affine.js';

/** All of a policy but its placement. */
export type BatchShape = Pick<
  Policy,
  | 'gpuBatchSize'
  | 'numGpuBatches'
  | 'prefillChunkTokens'
  | 'schedule'
  | 'weightBits'
  | 'kvCacheBits'
  | 'quantGroupSize'
  | 'sparseValueFraction'
  | 'overlap'
>;

/**
 * A stretch of the schedule that the job runs `count` times, and what each stage does in one run of it.
 * In one run the stages go side by side, except where they share silicon or wait for each other:
 * the seconds of a run are the largest of `boundSeconds`.
 */
export interface Segment {
  readonly phase: Phase;
  /** What computes; meanwhile the weights of the schedule layer after it are loaded. */
  readonly computes: 'embed' | 'decoder' | 'lastDecoder' | 'head';
  readonly count: number;
  /** Of these, in one full block (the mean of them; without a full one: in the partial one). 0 in other blocks. */
  readonly countInBlock: number;
  readonly stageSeconds: Readonly<Record<StageName, Affine>>;
  readonly trafficBytes: (link: Link) => Affine;
  /** Each is a lower bound of a run's seconds, and their maximum is the run's seconds. */
  readonly boundSeconds: readonly Affine[];
  readonly waking: Waking;
}

/**
 * The device's threads have parked by the time that what they wait for has come: waking them takes some of the time
 * they would wait.
 */
export interface Waking {
  readonly wakeSeconds: number;
  /** The compute thread's, waits apart: what is left of a run's seconds it waits. */
  readonly computing: Affine;
  /** Seconds of what each GPU batch of a run waits for; without any, only the first may wait, for the weights. */
  readonly batchLoads: Affine;
  readonly numBatches: number;
}

export interface CostTerms {
  readonly segments: readonly Segment[];
  /** Peak bytes of a tier are the largest of its expressions (one for each moment that may be the fullest). */
  readonly peakBytes: Readonly<Record<Tier, readonly Affine[]>>;
  readonly capacityBytes: Readonly<Record<Tier, number>>;
  /** Tokens that the job (without a number of sequences: one full block) generates. */
  readonly genTokens: number;
}

/** Stages that nothing overlaps: one after the other. */
export function serialSeconds(stageSeconds: Readonly<Record<StageName, Affine>>): Affine {
  return sum(...Object.values(stageSeconds));
}
