/** The cost terms of a batch shape: the schedule as segments, each with what its stages do. */
import { capacityBytes, deviceRates, hasGpuTier } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import type { LayerKind } from '../models/tensors.js';
import type { Realisation } from '../policy/realisation.js';
import type { Phase } from '../tiers.js';
import { totalGenTokens } from '../workload/blocks.js';
import type { Workload } from '../workload/workload.js';
import { constant, sum, ZERO } from './affine.js';
import {
  cpuAttentionSeconds,
  decoderSeconds,
  deviceAttentionSeconds,
  embedSeconds,
  goingOnSeconds,
  headSeconds,
} from './compute.js';
import type { BatchShape, CostTerms, Segment } from './cost-terms.js';
import { blockSets, type BlockSet } from './block-sets.js';
import { decodeLoads, numLaunches, prefillLoad, wholeDecodeLoad, type StepLoad } from './loads.js';
import { peakBytes } from './memory.js';
import type { Movement, Setting } from './movement.js';
import { makeSegment, type LayerWork } from './segment.js';
import { plannedShares, realisedShares } from './shares.js';
import { decoderMovements, embedMovements, headMovements, kvLoadMovements, weightMovements } from './traffic.js';

/**
 * The terms of (model, hardware, workload) for one batch shape. Without a realisation they are affine in the placement
 * variables; with one they are constants, counted slice by slice.
 */
export function costTerms(
  model: ModelConfig,
  hardware: HardwareProfile,
  workload: Workload,
  shape: BatchShape,
  realisation?: Realisation,
): CostTerms {
  const { device } = hardware;
  const shares = realisation ? realisedShares(model, shape, realisation) : plannedShares(model, shape, device);
  const setting: Setting = { model, shape, shares, device, hasGpu: hasGpuTier(hardware) };
  return new JobTerms(setting, hardware, workload);
}

/** Worked out when asked for: many shapes are out of the question by their peaks alone. */
class JobTerms implements CostTerms {
  readonly capacityBytes: CostTerms['capacityBytes'];
  readonly genTokens: number;
  readonly #sets: readonly BlockSet[];
  #peakBytes: CostTerms['peakBytes'] | undefined;
  #segments: readonly Segment[] | undefined;

  constructor(
    private readonly setting: Setting,
    private readonly hardware: HardwareProfile,
    workload: Workload,
  ) {
    this.#sets = blockSets(workload, setting.shape);
    this.capacityBytes = capacityBytes(hardware);
    this.genTokens = totalGenTokens(
      workload,
      this.#sets.flatMap(({ blocks }) => blocks),
    );
  }

  get peakBytes(): CostTerms['peakBytes'] {
    return (this.#peakBytes ??= peakBytes(this.setting, this.#sets));
  }

  get segments(): readonly Segment[] {
    return (this.#segments ??= this.#newSegments());
  }

  #newSegments(): Segment[] {
    const { setting, hardware } = this;
    const weights = {
      embed: weightMovements(setting, 'embed'),
      decoder: weightMovements(setting, 'decoder'),
      head: weightMovements(setting, 'head'),
    };
    return this.#sets.flatMap((set) => setSegments({ setting, hardware, weights }, set));
  }
}

/** What all segments of a job share. */
interface Schedule {
  readonly setting: Setting;
  readonly hardware: HardwareProfile;
  /** One load of a schedule layer's weights. */
  readonly weights: Readonly<Record<LayerKind, readonly Movement[]>>;
}

function setSegments(schedule: Schedule, set: BlockSet): Segment[] {
  const prefill = prefillLoad(set);
  const decode = decodeLoads(set);
  const wholeDecode = decode.length > 1 ? wholeDecodeLoad(set) : decode[0];
  return [
    ...phaseSegments(schedule, 'prefill', [prefill], prefill),
    ...(wholeDecode ? phaseSegments(schedule, 'decode', decode, wholeDecode) : []),
  ];
}

/** `loads`: the steps in segments, for the layers that grow with the KV cache; `steps`: all of them, for the others. */
function phaseSegments(schedule: Schedule, phase: Phase, loads: readonly StepLoad[], steps: StepLoad): Segment[] {
  const { setting, hardware } = schedule;
  const wholeLayer = decoderLayer(schedule, steps);
  const layers: (readonly [StepLoad, LayerWork])[] = [
    [steps, embedLayer(schedule, steps)],
    ...loads.map((load) => [load, load === steps ? wholeLayer : decoderLayer(schedule, load)] as const),
    [steps, lastDecoderLayer(schedule, steps, wholeLayer)],
    [steps, headLayer(schedule, steps)],
  ];
  return layers.map(([load, work]) => makeSegment(setting.shape, hardware, phase, load, work));
}

/**
 * While the next tokens are embedded, the first decoder layer's weights come (no earlier: both weight buffers were in use)
 * and its first GPU batch's KV cache (no earlier: the head decides who goes on).
 */
function embedLayer({ setting, hardware, weights }: Schedule, load: StepLoad): LayerWork {
  return {
    computes: 'embed',
    runsPerStep: 1,
    weights: weights.decoder,
    movements: [...embedMovements(setting, load), ...scaled(firstBatch(load), kvLoadMovements(setting, load))],
    compute: constant(embedSeconds(setting, deviceRates(hardware), load)),
    cpuAttention: ZERO,
  };
}

/** While one decoder layer computes, the next one's weights come. */
function decoderLayer({ setting, hardware, weights }: Schedule, load: StepLoad): LayerWork {
  const rates = deviceRates(hardware);
  return {
    computes: 'decoder',
    runsPerStep: setting.model.numLayers - 1,
    weights: weights.decoder,
    movements: [...kvLoadMovements(setting, load), ...decoderMovements(setting, load)],
    compute: sum(
      constant(decoderSeconds(setting, rates, load)),
      deviceAttentionSeconds(setting, rates, load),
      goingOnSeconds(setting, rates, load),
    ),
    cpuAttention: cpuAttentionSeconds(setting, hardware.compute.cpu, load),
  };
}

/** Beside the last decoder layer it is those of the head; the KV cache of its first GPU batch has come before. */
function lastDecoderLayer({ weights }: Schedule, load: StepLoad, layer: LayerWork): LayerWork {
  const isKvLoad = ({ task }: Movement) => task === 'loadKvCache';
  const movements = [
    ...scaled(1 - firstBatch(load), layer.movements.filter(isKvLoad)),
    ...layer.movements.filter((movement) => !isKvLoad(movement)),
  ];
  return { ...layer, computes: 'lastDecoder', runsPerStep: 1, weights: weights.head, movements };
}

function headLayer({ setting, hardware, weights }: Schedule, load: StepLoad): LayerWork {
  return {
    computes: 'head',
    runsPerStep: 1,
    weights: weights.embed,
    movements: headMovements(setting, load),
    compute: constant(headSeconds(setting, deviceRates(hardware), load)),
    cpuAttention: ZERO,
  };
}

/** The share of one GPU batch in a step. */
function firstBatch(load: StepLoad): number {
  return load.numRuns / numLaunches(load);
}

function scaled(factor: number, movements: readonly Movement[]): Movement[] {
  return movements.map((m) => ({ ...m, bytes: factor * m.bytes, transfers: factor * m.transfers }));
}
