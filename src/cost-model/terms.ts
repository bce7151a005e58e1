/** The cost terms of a batch shape: the schedule as segments, each with what its stages do. */
import { capacityBytes, deviceRates, hasGpuTier, linkRate } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import type { Realisation } from '../policy/realisation.js';
import { LINKS, type Link, type Phase, type StageName } from '../tiers.js';
import { totalGenTokens } from '../workload/blocks.js';
import type { Workload } from '../workload/workload.js';
import { constant, scale, sum, weightedSum, ZERO, type Affine } from './affine.js';
import { cpuAttentionSeconds, decoderSeconds, deviceAttentionSeconds, embedSeconds, headSeconds } from './compute.js';
import { serialSeconds, type BatchShape, type CostTerms, type Segment } from './cost-terms.js';
import { blockSets, decodeLoads, prefillLoad, wholeDecodeLoad, type BlockSet, type StepLoad } from './loads.js';
import { peakBytes } from './memory.js';
import type { Movement, Setting } from './movement.js';
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
  const sets = blockSets(workload, shape);
  return {
    segments: sets.flatMap((set) => setSegments(setting, hardware, set)),
    peakBytes: peakBytes(setting, sets),
    capacityBytes: capacityBytes(hardware),
    genTokens: totalGenTokens(sets.flatMap(({ groups }) => groups)),
  };
}

function setSegments(setting: Setting, hardware: HardwareProfile, set: BlockSet): Segment[] {
  const layers = (phase: Phase, loads: readonly StepLoad[], steps: StepLoad) => [
    embedSegment(setting, hardware, phase, steps),
    ...loads.map((load) => decoderSegment(setting, hardware, phase, load)),
    lastDecoderSegment(setting, hardware, phase, steps),
    headSegment(setting, hardware, phase, steps),
  ];
  const prefill = prefillLoad(set);
  const decode = decodeLoads(set);
  return [
    ...layers('prefill', [prefill], prefill),
    ...(decode.length > 0 ? layers('decode', decode, wholeDecodeLoad(set)) : []),
  ];
}

/**
 * While the next tokens are embedded, the first decoder layer's weights come (no earlier: both weight buffers were in use)
 * and its first GPU batch's KV cache (no earlier: the head decides who goes on).
 */
function embedSegment(setting: Setting, hardware: HardwareProfile, phase: Phase, load: StepLoad): Segment {
  return segment(setting, hardware, load, {
    phase,
    computes: 'embed',
    runsPerStep: 1,
    weights: weightMovements(setting, 'decoder'),
    movements: [...embedMovements(setting, load), ...scaled(firstBatch(load), kvLoadMovements(setting, load))],
    compute: constant(embedSeconds(setting, deviceRates(hardware), load)),
    cpuAttention: ZERO,
  });
}

/** While one decoder layer computes, the next one's weights come. */
function decoderSegment(setting: Setting, hardware: HardwareProfile, phase: Phase, load: StepLoad): Segment {
  return segment(setting, hardware, load, {
    phase,
    computes: 'decoder',
    runsPerStep: setting.model.numLayers - 1,
    weights: weightMovements(setting, 'decoder'),
    ...decoderLayer(setting, hardware, load),
  });
}

/** Beside the last decoder layer it is those of the head; the KV cache of its first GPU batch has come before. */
function lastDecoderSegment(setting: Setting, hardware: HardwareProfile, phase: Phase, load: StepLoad): Segment {
  return segment(setting, hardware, load, {
    phase,
    computes: 'lastDecoder',
    runsPerStep: 1,
    weights: weightMovements(setting, 'head'),
    ...decoderLayer(setting, hardware, load, 1 - firstBatch(load)),
  });
}

/** The share of one GPU batch in a step. */
function firstBatch(load: StepLoad): number {
  return load.numRuns / numLaunches(load);
}

function headSegment(setting: Setting, hardware: HardwareProfile, phase: Phase, load: StepLoad): Segment {
  return segment(setting, hardware, load, {
    phase,
    computes: 'head',
    runsPerStep: 1,
    weights: weightMovements(setting, 'embed'),
    movements: headMovements(setting, load),
    compute: constant(headSeconds(setting, deviceRates(hardware), load)),
    cpuAttention: ZERO,
  });
}

function decoderLayer(
  setting: Setting,
  hardware: HardwareProfile,
  load: StepLoad,
  kvLoadShare = 1,
): Pick<LayerWork, 'movements' | 'compute' | 'cpuAttention'> {
  const rates = deviceRates(hardware);
  return {
    movements: [...scaled(kvLoadShare, kvLoadMovements(setting, load)), ...decoderMovements(setting, load)],
    compute: sum(constant(decoderSeconds(setting, rates, load)), deviceAttentionSeconds(setting, rates, load)),
    cpuAttention: cpuAttentionSeconds(setting, hardware.compute.cpu, load),
  };
}

/** What one schedule layer does. */
interface LayerWork {
  readonly phase: Phase;
  readonly computes: Segment['computes'];
  readonly runsPerStep: number;
  /** In one run. */
  readonly weights: readonly Movement[];
  /** Summed over the steps of the load, one layer each: as all below. */
  readonly movements: readonly Movement[];
  readonly compute: Affine;
  readonly cpuAttention: Affine;
}

function segment({ shape }: Setting, hardware: HardwareProfile, load: StepLoad, work: LayerWork): Segment {
  const { phase, computes } = work;
  const perRun = 1 / load.numRuns;
  const run: Run = {
    movements: [
      ...work.weights.map((movement) => ({ times: 1, movement })),
      ...work.movements.map((movement) => ({ times: perRun, movement })),
    ],
    numBatches: perRun * numLaunches(load),
  };
  const stageSeconds = {
    compute: scale(perRun, work.compute),
    cpuAttention: scale(perRun, work.cpuAttention),
    ...perLink((link) => movementSeconds(hardware, run, (m) => m.link === link)),
  };
  const handOvers = constant(run.numBatches * hardware.taskSeconds.value);
  return {
    phase,
    computes,
    count: load.numRuns * work.runsPerStep,
    stageSeconds,
    trafficBytes: perLink((link) => movementBytes(run, link)),
    boundSeconds: shape.overlap
      ? overlapBounds(hardware, run, stageSeconds, handOvers)
      : [sum(serialSeconds(stageSeconds), handOvers)],
  };
}

/** What a run of a segment moves, each movement so many times, for how many GPU batches. */
interface Run {
  readonly movements: readonly { readonly times: number; readonly movement: Movement }[];
  readonly numBatches: number;
}

/**
 * With the six tasks side by side, no run is shorter than
 * - the compute thread: device and CPU attention take turns, with the copies of q and output between them;
 * - any link;
 * - one GPU batch's way through the layer: its hidden states come, it computes, they go (binding with few batches);
 * - any other task's thread: it waits for the disk before it copies on, and copies before it writes to disk.
 */
function overlapBounds(
  hardware: HardwareProfile,
  run: Run,
  stageSeconds: Readonly<Record<StageName, Affine>>,
  handOvers: Affine,
): Affine[] {
  const secondsOf = (counts: (movement: Movement) => boolean) => movementSeconds(hardware, run, counts);
  const copies = secondsOf(({ task }) => task === 'compute');
  const computing = sum(stageSeconds.compute, stageSeconds.cpuAttention, copies, handOvers);
  const hiddenStates = secondsOf(({ task }) => task === 'loadActivations' || task === 'storeActivations');
  return [
    computing,
    scale(1 / run.numBatches, sum(computing, hiddenStates)),
    ...LINKS.map((link) => stageSeconds[link]),
    secondsOf(({ task, home }) => task === 'loadKvCache' && home === 'disk'),
    secondsOf(({ task, home }) => task === 'loadActivations' && home === 'disk'),
    secondsOf(({ task }) => task === 'storeKvCache'),
    secondsOf(({ task }) => task === 'storeActivations'),
  ];
}

function movementSeconds(hardware: HardwareProfile, { movements }: Run, counts: (m: Movement) => boolean): Affine {
  const terms: (readonly [number, Affine])[] = [];
  for (const { times, movement } of movements) {
    if (!counts(movement)) continue;
    terms.push([times * transferSeconds(hardware, movement), movement.share]);
  }
  return weightedSum(terms);
}

/** KV cache crosses at its own rate where the profile has one. */
function transferSeconds(hardware: HardwareProfile, { task, link, bytes, transfers }: Movement): number {
  const { bytesPerSecond, kvCacheBytesPerSecond = bytesPerSecond, latencySeconds } = linkRate(hardware, link)!;
  const rate = task === 'loadKvCache' || task === 'storeKvCache' ? kvCacheBytesPerSecond : bytesPerSecond;
  return bytes / rate.value + transfers * latencySeconds.value;
}

function movementBytes({ movements }: Run, link: Link): Affine {
  const ofLink = movements.filter(({ movement }) => movement.link === link);
  return weightedSum(ofLink.map(({ times, movement }) => [times * movement.bytes, movement.share]));
}

function scaled(factor: number, movements: readonly Movement[]): Movement[] {
  return movements.map((m) => ({ ...m, bytes: factor * m.bytes, transfers: factor * m.transfers }));
}

function numLaunches({ launches }: StepLoad): number {
  return launches.reduce((total, { count }) => total + count, 0);
}

function perLink(value: (link: Link) => Affine): Record<Link, Affine> {
  const [cpuToGpu, gpuToCpu, diskToCpu, cpuToDisk] = LINKS.map(value);
  return { cpuToGpu: cpuToGpu!, gpuToCpu: gpuToCpu!, diskToCpu: diskToCpu!, cpuToDisk: cpuToDisk! };
}
