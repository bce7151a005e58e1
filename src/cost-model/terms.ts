/** The cost terms of a batch shape: the schedule as segments, each with what its stages do. */
import { capacityBytes, deviceRates, hasGpuTier, linkRate } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import type { Realisation } from '../policy/realisation.js';
import { LINKS, type Link, type Phase, type StageName } from '../tiers.js';
import { totalGenTokens } from '../workload/blocks.js';
import type { Workload } from '../workload/workload.js';
import { constant, scale, sum, ZERO, type Affine } from './affine.js';
import { cpuAttentionSeconds, decoderSeconds, deviceAttentionSeconds, endsSeconds } from './compute.js';
import { serialSeconds, type BatchShape, type CostTerms, type Segment } from './cost-terms.js';
import { blockSets, decodeLoads, prefillLoad, type BlockSet, type StepLoad } from './loads.js';
import { peakBytes } from './memory.js';
import { plannedShares, realisedShares } from './shares.js';
import {
  decoderMovements,
  endsMovements,
  linkBytes,
  weightMovements,
  type Movement,
  type Setting,
  type Task,
} from './traffic.js';

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
  const shares = realisation ? realisedShares(model, shape, realisation) : plannedShares(model, shape, hardware.device);
  const setting: Setting = { model, shape, shares, hasGpu: hasGpuTier(hardware) };
  const sets = blockSets(workload, shape);
  return {
    segments: sets.flatMap((set) => setSegments(setting, hardware, set)),
    peakBytes: peakBytes(setting, sets),
    capacityBytes: capacityBytes(hardware),
    genTokens: totalGenTokens(sets.flatMap(({ groups }) => groups)),
  };
}

function setSegments(setting: Setting, hardware: HardwareProfile, set: BlockSet): Segment[] {
  const prefill = prefillLoad(set);
  const decode = decodeLoads(set);
  return [
    fillSegment(setting, hardware, set),
    ...decoderSegments(setting, hardware, 'prefill', prefill),
    turnSegment(setting, hardware, 'prefill', prefill),
    ...decode.flatMap((load) => [
      ...decoderSegments(setting, hardware, 'decode', load),
      turnSegment(setting, hardware, 'decode', load),
    ]),
  ].filter(({ count }) => count > 0);
}

/** A block begins with loads that nothing overlaps: the weights of `embed` and of the first decoder layer. */
function fillSegment(setting: Setting, hardware: HardwareProfile, set: BlockSet): Segment {
  const movements = [...weightMovements(setting, 'embed'), ...weightMovements(setting, 'decoder')];
  return segment(setting, hardware, {
    phase: 'prefill',
    label: 'fill',
    count: set.numBlocks,
    movements,
    runMovements: [],
    compute: ZERO,
    cpuAttention: ZERO,
    numRuns: 1,
    batches: 0,
  });
}

/** Decoder layers: while one computes, the next one's weights come; beside the last decoder layer that is `head`. */
function decoderSegments(setting: Setting, hardware: HardwareProfile, phase: Phase, load: StepLoad): Segment[] {
  const rates = deviceRates(hardware);
  const stages = {
    phase,
    runMovements: decoderMovements(setting, load),
    compute: sum(constant(decoderSeconds(setting, rates, load)), deviceAttentionSeconds(setting, rates, load)),
    cpuAttention: cpuAttentionSeconds(setting, hardware.compute.cpu, load),
    numRuns: load.numRuns,
    batches: numLaunches(load),
  };
  const { numLayers } = setting.model;
  return [
    segment(setting, hardware, {
      ...stages,
      label: 'decoder',
      count: load.numRuns * (numLayers - 1),
      movements: weightMovements(setting, 'decoder'),
    }),
    segment(setting, hardware, {
      ...stages,
      label: 'lastDecoder',
      count: load.numRuns,
      movements: weightMovements(setting, 'head'),
    }),
  ];
}

/** `head` of one step and `embed` of the next, while the first decoder layer's weights come (at prefill the fill has brought them). */
function turnSegment(setting: Setting, hardware: HardwareProfile, phase: Phase, load: StepLoad): Segment {
  const weights = [...weightMovements(setting, 'embed'), ...weightMovements(setting, 'decoder')];
  return segment(setting, hardware, {
    phase,
    label: 'turn',
    count: load.numRuns,
    movements: phase === 'prefill' ? [] : weights,
    runMovements: endsMovements(setting, load),
    compute: constant(endsSeconds(setting, deviceRates(hardware), load)),
    cpuAttention: ZERO,
    numRuns: load.numRuns,
    batches: 2 * numLaunches(load),
  });
}

interface SegmentParts {
  readonly phase: Phase;
  readonly label: Segment['label'];
  readonly count: number;
  /** Of one run. */
  readonly movements: readonly Movement[];
  /** Totals over `numRuns`: as everything below. */
  readonly runMovements: readonly Movement[];
  readonly compute: Affine;
  readonly cpuAttention: Affine;
  readonly numRuns: number;
  /** Computed items: each is handed from thread to thread once. */
  readonly batches: number;
}

function segment({ shape }: Setting, hardware: HardwareProfile, parts: SegmentParts): Segment {
  const perRun = 1 / parts.numRuns;
  const movements = [
    ...parts.movements,
    ...parts.runMovements.map((m) => ({ ...m, bytes: scale(perRun, m.bytes), transfers: scale(perRun, m.transfers) })),
  ];
  const ofLinks = (value: (link: Link) => Affine) =>
    Object.fromEntries(LINKS.map((link) => [link, value(link)])) as Record<Link, Affine>;
  const stageSeconds = {
    compute: scale(perRun, parts.compute),
    cpuAttention: scale(perRun, parts.cpuAttention),
    ...ofLinks((link) =>
      linkSeconds(
        hardware,
        movements.filter((m) => m.link === link),
      ),
    ),
  };
  const handOvers = constant(perRun * parts.batches * hardware.taskSeconds.value);
  const overlapped = shape.overlap && parts.label !== 'fill';
  const bounds = overlapBounds(hardware, stageSeconds, movements, handOvers, perRun * parts.batches);
  return {
    phase: parts.phase,
    label: parts.label,
    count: parts.count,
    stageSeconds,
    trafficBytes: ofLinks((link) => linkBytes(movements, link)),
    boundSeconds: overlapped ? bounds : [sum(serialSeconds(stageSeconds), handOvers)],
  };
}

/**
 * With the stages side by side, no run is shorter than
 * - the compute thread: device and CPU attention take turns, with the copies of q and output between them;
 * - any link;
 * - one GPU batch's way through the layer: its hidden states come, it computes, they go (binding with few batches).
 */
function overlapBounds(
  hardware: HardwareProfile,
  stageSeconds: Readonly<Record<StageName, Affine>>,
  movements: readonly Movement[],
  handOvers: Affine,
  batches: number,
): Affine[] {
  const secondsOf = (...tasks: readonly Task[]) =>
    linkSeconds(
      hardware,
      movements.filter(({ task }) => tasks.includes(task)),
    );
  const computing = sum(stageSeconds.compute, stageSeconds.cpuAttention, secondsOf('compute'), handOvers);
  const oneBatch = scale(1 / batches, sum(computing, secondsOf('loadActivations', 'storeActivations')));
  return [computing, oneBatch, ...LINKS.map((link) => stageSeconds[link])];
}

function linkSeconds(hardware: HardwareProfile, movements: readonly Movement[]): Affine {
  return sum(
    ...movements.map(({ link, bytes, transfers }) => {
      const rate = linkRate(hardware, link)!;
      return sum(scale(1 / rate.bytesPerSecond.value, bytes), scale(rate.latencySeconds.value, transfers));
    }),
  );
}

function numLaunches({ launches }: StepLoad): number {
  return launches.reduce((total, { count }) => total + count, 0);
}
