/** The cost terms of a batch shape: the schedule as segments, each with what its stages do. */
import { capacityBytes, deviceRates, hasGpuTier, linkRate } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import type { Realisation } from '../policy/realisation.js';
import { LINKS, type Link, type Phase, type StageName } from '../tiers.js';
import { totalGenTokens } from '../workload/blocks.js';
import type { Workload } from '../workload/workload.js';
import { constant, scale, sum, weightedSum, ZERO, type Affine } from './affine.js';
import { cpuAttentionSeconds, decoderSeconds, deviceAttentionSeconds, endsSeconds } from './compute.js';
import { serialSeconds, type BatchShape, type CostTerms, type Segment } from './cost-terms.js';
import { blockSets, decodeLoads, prefillLoad, type BlockSet, type StepLoad } from './loads.js';
import { peakBytes } from './memory.js';
import { plannedShares, realisedShares } from './shares.js';
import { decoderMovements, endsMovements, weightMovements, type Movement, type Setting, type Task } from './traffic.js';

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
  return segment(setting, hardware, {
    phase: 'prefill',
    label: 'fill',
    count: set.numBlocks,
    weights: [...weightMovements(setting, 'embed'), ...weightMovements(setting, 'decoder')],
    movements: [],
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
    movements: decoderMovements(setting, load),
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
      weights: weightMovements(setting, 'decoder'),
    }),
    segment(setting, hardware, {
      ...stages,
      label: 'lastDecoder',
      count: load.numRuns,
      weights: weightMovements(setting, 'head'),
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
    weights: phase === 'prefill' ? [] : weights,
    movements: endsMovements(setting, load),
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
  readonly weights: readonly Movement[];
  /** Everything below: totals over `numRuns`. */
  readonly numRuns: number;
  readonly movements: readonly Movement[];
  readonly compute: Affine;
  readonly cpuAttention: Affine;
  /** Computed items: each is handed from thread to thread once. */
  readonly batches: number;
}

function segment({ shape }: Setting, hardware: HardwareProfile, parts: SegmentParts): Segment {
  const { phase, label, count } = parts;
  const perRun = 1 / parts.numRuns;
  const movements = (link: Link) => ofRun(parts, (m) => m.link === link);
  const stageSeconds = {
    compute: scale(perRun, parts.compute),
    cpuAttention: scale(perRun, parts.cpuAttention),
    ...perLink((link) => movementSeconds(hardware, movements(link))),
  };
  const trafficBytes = perLink((link) => weightedSum(movements(link).map(([times, { bytes }]) => [times, bytes])));
  const handOvers = constant(perRun * parts.batches * hardware.taskSeconds.value);
  const boundSeconds =
    shape.overlap && label !== 'fill'
      ? overlapBounds(hardware, parts, stageSeconds, handOvers)
      : [sum(serialSeconds(stageSeconds), handOvers)];
  return { phase, label, count, stageSeconds, trafficBytes, boundSeconds };
}

/**
 * With the stages side by side, no run is shorter than
 * - the compute thread: device and CPU attention take turns, with the copies of q and output between them;
 * - one GPU batch's way through the layer: its hidden states come, it computes, they go (binding with few batches);
 * - any link.
 */
function overlapBounds(
  hardware: HardwareProfile,
  parts: SegmentParts,
  stageSeconds: Readonly<Record<StageName, Affine>>,
  handOvers: Affine,
): Affine[] {
  const secondsOf = (...tasks: readonly Task[]) =>
    movementSeconds(
      hardware,
      ofRun(parts, ({ task }) => tasks.includes(task)),
    );
  const computing = sum(stageSeconds.compute, stageSeconds.cpuAttention, secondsOf('compute'), handOvers);
  const travelling = secondsOf('loadActivations', 'storeActivations');
  const oneBatch = scale(parts.numRuns / parts.batches, sum(computing, travelling));
  return [computing, oneBatch, ...LINKS.map((link) => stageSeconds[link])];
}

/** The movements that `counts` picks, each with how often one run of the segment makes it. */
function ofRun(
  { weights, movements, numRuns }: SegmentParts,
  counts: (movement: Movement) => boolean,
): (readonly [times: number, movement: Movement])[] {
  return [
    ...weights.filter(counts).map((m) => [1, m] as const),
    ...movements.filter(counts).map((m) => [1 / numRuns, m] as const),
  ];
}

function movementSeconds(
  hardware: HardwareProfile,
  movements: readonly (readonly [times: number, movement: Movement])[],
): Affine {
  return weightedSum(
    movements.flatMap(([times, { task, link, bytes, transfers }]) => {
      const { bytesPerSecond, kvCacheBytesPerSecond = bytesPerSecond, latencySeconds } = linkRate(hardware, link)!;
      const rate = task === 'loadKvCache' || task === 'storeKvCache' ? kvCacheBytesPerSecond : bytesPerSecond;
      return [[times / rate.value, bytes] as const, [times * latencySeconds.value, transfers] as const];
    }),
  );
}

function perLink(value: (link: Link) => Affine): Record<Link, Affine> {
  const [cpuToGpu, gpuToCpu, diskToCpu, cpuToDisk] = LINKS.map(value);
  return { cpuToGpu: cpuToGpu!, gpuToCpu: gpuToCpu!, diskToCpu: diskToCpu!, cpuToDisk: cpuToDisk! };
}

function numLaunches({ launches }: StepLoad): number {
  return launches.reduce((total, { count }) => total + count, 0);
}
