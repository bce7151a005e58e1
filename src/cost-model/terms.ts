/** The cost terms of a batch shape: the schedule as segments, each with what its stages do. */
import { capacityBytes, deviceRates, hasGpuTier } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import type { LayerKind } from '../models/tensors.js';
import { isDiagonal, prefillChunkTokens } from '../policy/policy.js';
import type { Realisation } from '../policy/realisation.js';
import { once } from '../remembered.js';
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
import { blockSets, inChunks, type BlockSet } from './block-sets.js';
import { diagonalWork } from './diagonal-work.js';
import {
  decodeLoads,
  groupOf,
  numLaunches,
  prefillLoad,
  wholeDecodeLoad,
  type StepGroup,
  type StepLoad,
} from './loads.js';
import { peakBytes } from './memory.js';
import type { Movement, Setting } from './movement.js';
import { makeSegment, type LayerWork } from './segment.js';
import { plannedShares, realisedShares } from './shares.js';
import { decoderMovements, embedMovements, headMovements, kvLoadMovements, weightMovements } from './traffic.js';

/**
 * The terms of (model, hardware, workload) for one batch shape. Without a realisation they are affine in the placement
 * variables; with one they are constants, counted slice by slice. Each is worked out when it is asked for: of most
 * shapes a search wants to know little.
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
  const sets = blockSets(workload, shape);
  const blocks = sets.flatMap((set) => set.blocks);
  const peaks = once(() => peakBytes(setting, sets));
  const segments = once(() =>
    isDiagonal(shape) && realisation
      ? diagonalSegments(setting, hardware, workload, realisation)
      : jobSegments(setting, hardware, sets),
  );
  return {
    get segments() {
      return segments();
    },
    get peakBytes() {
      return peaks();
    },
    capacityBytes: capacityBytes(hardware),
    genTokens: totalGenTokens(workload, blocks),
  };
}

/** What all segments of a job share. */
interface Schedule {
  readonly setting: Setting;
  readonly hardware: HardwareProfile;
  /** One load of a schedule layer's weights. */
  readonly weights: Readonly<Record<LayerKind, readonly Movement[]>>;
  /** What one of the blocks that count for latency is of all of the set. */
  readonly blockShare: number;
}

function jobSegments(setting: Setting, hardware: HardwareProfile, sets: readonly BlockSet[]): Segment[] {
  const weights = layerWeights(setting);
  return sets.flatMap((set, s) =>
    setSegments({ setting, hardware, weights, blockShare: s === 0 ? 1 / set.numBlocks : 0 }, set),
  );
}

/** One block, in which the steps with prompts are prefill. */
function diagonalSegments(
  setting: Setting,
  hardware: HardwareProfile,
  workload: Workload,
  realisation: Realisation,
): Segment[] {
  const { shares, groups } = diagonalWork(setting, workload, realisation.slots);
  const schedule = { setting: { ...setting, shares }, hardware, weights: layerWeights(setting), blockShare: 1 };
  return groups.flatMap(({ phase, group }) => phaseSegments(schedule, phase, [group], group));
}

function layerWeights(setting: Setting): Schedule['weights'] {
  return {
    embed: weightMovements(setting, 'embed'),
    decoder: weightMovements(setting, 'decoder'),
    head: weightMovements(setting, 'head'),
  };
}

function setSegments(schedule: Schedule, set: BlockSet): Segment[] {
  const prefill = groupOf(prefillLoad(inChunks(set, prefillChunkTokens(schedule.setting.shape))));
  const decode = decodeLoads(set).map(groupOf);
  const wholeDecode = decode.length > 1 ? groupOf(wholeDecodeLoad(set)) : decode[0];
  return [
    ...phaseSegments(schedule, 'prefill', [prefill], prefill),
    ...(wholeDecode ? phaseSegments(schedule, 'decode', decode, wholeDecode) : []),
  ];
}

/**
 * `groups`: the steps in segments, for the layers that grow with the KV cache; `steps`: all of them, for the others.
 */
function phaseSegments(schedule: Schedule, phase: Phase, groups: readonly StepGroup[], steps: StepGroup): Segment[] {
  const { setting, hardware } = schedule;
  const segment = (computes: Segment['computes'], layers: number, group: StepGroup, work: () => LayerWork): Segment => {
    const count = group.numRuns * layers;
    const place = { phase, computes, count, countInBlock: count * schedule.blockShare };
    return makeSegment(setting.shape, hardware, place, group, work);
  };
  const wholeLayer = once(() => decoderLayer(schedule, steps));
  return [
    segment('embed', 1, steps, () => embedLayer(schedule, steps)),
    ...groups.map((group) =>
      segment('decoder', setting.model.numLayers - 1, group, () =>
        group === steps ? wholeLayer() : decoderLayer(schedule, group),
      ),
    ),
    segment('lastDecoder', 1, steps, () => lastDecoderLayer(schedule, steps, wholeLayer())),
    segment('head', 1, steps, () => headLayer(schedule, steps)),
  ];
}

/** What a layer does for all parts of a group. */
function sumOfParts(
  weights: LayerWork['weights'],
  { parts }: StepGroup,
  work: (load: StepLoad) => Omit<LayerWork, 'weights'>,
): LayerWork {
  const works = parts.map(work);
  return {
    weights,
    movements: works.flatMap(({ movements }) => movements),
    compute: sum(...works.map(({ compute }) => compute)),
    cpuAttention: sum(...works.map(({ cpuAttention }) => cpuAttention)),
  };
}

/**
 * While the next tokens are embedded, the first decoder layer's weights come (no earlier: both weight buffers were in
 * use) and its first GPU batch's KV cache (no earlier: the head decides who goes on).
 */
function embedLayer({ setting, hardware, weights }: Schedule, group: StepGroup): LayerWork {
  return sumOfParts(weights.decoder, group, (load) => ({
    movements: [...embedMovements(setting, load), ...scaled(firstBatch(group), kvLoadMovements(setting, load))],
    compute: constant(embedSeconds(setting, deviceRates(hardware), load)),
    cpuAttention: ZERO,
  }));
}

/** While one decoder layer computes, the next one's weights come. */
function decoderLayer({ setting, hardware, weights }: Schedule, group: StepGroup): LayerWork {
  const rates = deviceRates(hardware);
  return sumOfParts(weights.decoder, group, (load) => ({
    movements: [...kvLoadMovements(setting, load), ...decoderMovements(setting, load)],
    compute: sum(
      constant(decoderSeconds(setting, rates, load)),
      deviceAttentionSeconds(setting, rates, load),
      goingOnSeconds(setting, rates, load),
    ),
    cpuAttention: cpuAttentionSeconds(setting, hardware.compute.cpu, load),
  }));
}

/** Beside the last decoder layer it is those of the head; the KV cache of its first GPU batch has come before. */
function lastDecoderLayer({ weights }: Schedule, group: StepGroup, layer: LayerWork): LayerWork {
  const isKvLoad = ({ task }: Movement) => task === 'loadKvCache';
  const movements = [
    ...scaled(1 - firstBatch(group), layer.movements.filter(isKvLoad)),
    ...layer.movements.filter((movement) => !isKvLoad(movement)),
  ];
  return { ...layer, weights: weights.head, movements };
}

function headLayer({ setting, hardware, weights }: Schedule, group: StepGroup): LayerWork {
  return sumOfParts(weights.embed, group, (load) => ({
    movements: headMovements(setting, load),
    compute: constant(headSeconds(setting, deviceRates(hardware), load)),
    cpuAttention: ZERO,
  }));
}

/** The share of one GPU batch in a step. */
function firstBatch(group: StepGroup): number {
  return group.numRuns / numLaunches(group);
}

function scaled(factor: number, movements: readonly Movement[]): Movement[] {
  return movements.map(({ task, link, home, share, bytes, transfers }) => ({
    task,
    link,
    home,
    share,
    bytes: factor * bytes,
    transfers: factor * transfers,
  }));
}
