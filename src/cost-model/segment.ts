/** A segment of the schedule: what one schedule layer computes and moves, as seconds of stages and bounds of the whole. */
import { linkRate } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import { LINKS, type Link, type Phase, type StageName } from '../tiers.js';
import { constant, scale, sum, weightedSum, type Affine } from './affine.js';
import { serialSeconds, type BatchShape, type Segment } from './cost-terms.js';
import { numLaunches, type StepLoad } from './loads.js';
import type { Movement } from './movement.js';

/** What one schedule layer does. */
export interface LayerWork {
  readonly computes: Segment['computes'];
  readonly runsPerStep: number;
  /** In one run. */
  readonly weights: readonly Movement[];
  /** Summed over the steps of the load, one layer each: as all below. */
  readonly movements: readonly Movement[];
  readonly compute: Affine;
  readonly cpuAttention: Affine;
}

export function makeSegment(
  { overlap }: BatchShape,
  hardware: HardwareProfile,
  phase: Phase,
  load: StepLoad,
  work: LayerWork,
): Segment {
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
    computes: work.computes,
    count: load.numRuns * work.runsPerStep,
    stageSeconds,
    trafficBytes: perLink((link) => movementBytes(run, link)),
    boundSeconds: overlap
      ? overlapBounds(hardware, run, stageSeconds, handOvers, work.computes === 'embed')
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
 * - any other task's thread: it waits for the disk before it copies on, and copies before it writes to disk. (Weights are
 *   read from disk one layer ahead, but for the first layer of a step: before it there is nothing to load.)
 */
function overlapBounds(
  hardware: HardwareProfile,
  run: Run,
  stageSeconds: Readonly<Record<StageName, Affine>>,
  handOvers: Affine,
  isFirst: boolean,
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
    ...(isFirst ? [secondsOf(({ task, home }) => task === 'loadWeights' && home === 'disk')] : []),
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

/** KV cache that is at home in RAM crosses at its own rate where the profile has one; what comes from disk is staged like the rest. */
function transferSeconds(hardware: HardwareProfile, { task, link, home, bytes, transfers }: Movement): number {
  const { bytesPerSecond, kvCacheBytesPerSecond = bytesPerSecond, latencySeconds } = linkRate(hardware, link)!;
  const isKvCache = task === 'loadKvCache' || task === 'storeKvCache';
  const rate = isKvCache && home === 'cpu' ? kvCacheBytesPerSecond : bytesPerSecond;
  return bytes / rate.value + transfers * latencySeconds.value;
}

function movementBytes({ movements }: Run, link: Link): Affine {
  const ofLink = movements.filter(({ movement }) => movement.link === link);
  return weightedSum(ofLink.map(({ times, movement }) => [times * movement.bytes, movement.share]));
}

function perLink(value: (link: Link) => Affine): Record<Link, Affine> {
  const [cpuToGpu, gpuToCpu, diskToCpu, cpuToDisk] = LINKS.map(value);
  return { cpuToGpu: cpuToGpu!, gpuToCpu: gpuToCpu!, diskToCpu: diskToCpu!, cpuToDisk: cpuToDisk! };
}
