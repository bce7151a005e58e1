/** What a policy will take: seconds, bytes and peaks, from the same terms that the linear program optimises. */
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import { isDiagonal, type Policy } from '../policy/policy.js';
import { checkPlacement, realise, type Realisation } from '../policy/realisation.js';
import { once } from '../remembered.js';
import { LINKS, STAGES, TIERS, type Phase, type StageName, type Tier } from '../tiers.js';
import type { Workload } from '../workload/workload.js';
import { evaluate, placementPoint, type PlacementPoint } from './affine.js';
import type { CostTerms, Segment } from './cost-terms.js';
import type { Estimate, LinkBytes, StageSeconds } from './estimate-types.js';
import { costTerms } from './terms.js';

export interface EstimateOptions {
  /**
   * true: of the whole slices that the engine will place (always so of the diagonal schedule); false: of the fractions
   * as they are.
   */
  readonly realised: boolean;
}

/**
 * The estimate of a job (without a number of sequences: of one full block). Policies that do not fit get one, too.
 * Throws `bad-input` for fractions that do not sum to 1, or that want a gpu tier where there is none.
 */
export function estimate(
  model: ModelConfig,
  hardware: HardwareProfile,
  workload: Workload,
  policy: Policy,
  options: EstimateOptions = { realised: false },
): Estimate {
  if (options.realised || isDiagonal(policy)) return estimateRealised(model, hardware, workload, policy).whole();
  checkPlacement(policy, hardware.device);
  return evaluateTerms(costTerms(model, hardware, workload, policy), placementPoint(policy));
}

/**
 * Of a policy as whole slices: what decides whether it is taken, and the rest when it is. Throws as `estimate` does.
 */
export function estimateRealised(
  model: ModelConfig,
  hardware: HardwareProfile,
  workload: Workload,
  policy: Policy,
  realisation: Realisation = realise(model, policy, workload, hardware.device),
): RealisedEstimate {
  const terms = costTerms(model, hardware, workload, policy, realisation);
  const point = placementPoint(policy);
  return {
    peakBytes: peaks(terms, point),
    totalSeconds: once(() => sumSegments(terms, ({ count }) => count, point)),
    blockSeconds: once(() => sumSegments(terms, ({ countInBlock }) => countInBlock, point)),
    whole: () => evaluateTerms(terms, point),
  };
}

export interface RealisedEstimate {
  readonly peakBytes: Record<Tier, number>;
  totalSeconds(): number;
  /** Of one full block: the latency. */
  blockSeconds(): number;
  whole(): Estimate;
}

/** Seconds of one run of a segment: its largest bound. */
export function segmentSeconds({ boundSeconds }: Segment, point: PlacementPoint): number {
  return boundSeconds.reduce((most, bound) => Math.max(most, evaluate(bound, point)), 0);
}

/**
 * What waking the device's threads adds to the compute stage of one run, never more than the time that it would wait.
 */
function wakingSeconds(segment: Segment, point: PlacementPoint): number {
  const { wakeSeconds, computing, batchLoads, numBatches } = segment.waking;
  if (wakeSeconds === 0) return 0;
  const waits = evaluate(batchLoads, point) > 0 ? numBatches : 1;
  return Math.max(0, Math.min(waits * wakeSeconds, segmentSeconds(segment, point) - evaluate(computing, point)));
}

function sumSegments({ segments }: CostTerms, times: (segment: Segment) => number, point: PlacementPoint): number {
  return segments.reduce((sum, segment) => sum + times(segment) * segmentSeconds(segment, point), 0);
}

function peaks({ peakBytes }: CostTerms, point: PlacementPoint): Record<Tier, number> {
  return perTier((tier) => Math.max(0, ...peakBytes[tier].map((bytes) => evaluate(bytes, point))));
}

function evaluateTerms(terms: CostTerms, point: PlacementPoint): Estimate {
  const prefill = phaseEstimate(terms, 'prefill', point);
  const decode = phaseEstimate(terms, 'decode', point);
  const totalSeconds = prefill.seconds + decode.seconds;
  const peakBytes = peaks(terms, point);
  return {
    prefillSeconds: prefill.seconds,
    decodeSeconds: decode.seconds,
    totalSeconds,
    genTokensPerSecond: terms.genTokens / totalSeconds,
    bottleneck: { prefill: prefill.bottleneck, decode: decode.bottleneck },
    stageSeconds: { prefill: prefill.stageSeconds, decode: decode.stageSeconds },
    trafficBytes: { prefill: prefill.trafficBytes, decode: decode.trafficBytes },
    peakBytes,
    fits: perTier((tier) => peakBytes[tier] <= terms.capacityBytes[tier]),
  };
}

interface PhaseEstimate {
  readonly seconds: number;
  readonly stageSeconds: StageSeconds;
  readonly trafficBytes: LinkBytes;
  readonly bottleneck: StageName;
}

function phaseEstimate({ segments }: CostTerms, phase: Phase, point: PlacementPoint): PhaseEstimate {
  const ofPhase = segments.filter((segment) => segment.phase === phase);
  const total = (value: (segment: Segment) => number) =>
    ofPhase.reduce((sum, segment) => sum + segment.count * value(segment), 0);
  const busy = record(STAGES, (stage) => total((segment) => evaluate(segment.stageSeconds[stage], point)));
  const stageSeconds = { ...busy, compute: busy.compute + total((segment) => wakingSeconds(segment, point)) };
  return {
    seconds: total((segment) => segmentSeconds(segment, point)),
    stageSeconds,
    trafficBytes: record(LINKS, (link) => total((segment) => evaluate(segment.trafficBytes(link), point))),
    bottleneck: bottleneckOf(stageSeconds),
  };
}

/** The stage that is busy longest; device and CPU attention take turns, so together they can outlast a link. */
function bottleneckOf(stageSeconds: StageSeconds): StageName {
  const computing = stageSeconds.compute + stageSeconds.cpuAttention;
  const link = LINKS.reduce((most, name) => (stageSeconds[name] > stageSeconds[most] ? name : most));
  if (stageSeconds[link] > computing) return link;
  return stageSeconds.cpuAttention > stageSeconds.compute ? 'cpuAttention' : 'compute';
}

function perTier<T>(value: (tier: Tier) => T): Record<Tier, T> {
  return record(TIERS, value);
}

function record<K extends string, T>(keys: readonly K[], value: (key: K) => T): Record<K, T> {
  return Object.fromEntries(keys.map((key) => [key, value(key)])) as Record<K, T>;
}
