/**
 * A segment of the schedule: what one schedule layer computes and moves, as seconds of stages and bounds of the whole.
 */
import { deviceRates, linkRate } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import { once } from '../remembered.js';
import { LINKS, type Link } from '../tiers.js';
import { AffineSum, constant, scale, sum, type Affine } from './affine.js';
import { serialSeconds, type BatchShape, type Segment } from './cost-terms.js';
import { numLaunches, type StepGroup } from './loads.js';
import type { Movement } from './movement.js';

/** What one schedule layer does. */
export interface LayerWork {
  /** In one run. */
  readonly weights: readonly Movement[];
  /** Summed over the steps of the load, one layer each: as all below. */
  readonly movements: readonly Movement[];
  readonly compute: Affine;
  readonly cpuAttention: Affine;
}

/** `work` is asked for with the first question about seconds or bytes. */
export function makeSegment(
  { overlap }: BatchShape,
  hardware: HardwareProfile,
  place: Pick<Segment, 'phase' | 'computes' | 'count' | 'countInBlock'>,
  load: StepGroup,
  work: () => LayerWork,
): Segment {
  const run = once(() => runOf(hardware, load, work()));
  const bounds = once(() => (overlap ? overlapBounds(run(), place.computes === 'embed') : [serial(run())]));
  return {
    ...place,
    get stageSeconds() {
      return run().stageSeconds;
    },
    get boundSeconds() {
      return bounds();
    },
    get waking() {
      const { moved, numBatches } = run();
      const wakeSeconds = deviceRates(hardware).wakeSeconds?.value ?? 0;
      return { wakeSeconds, computing: computing(run()), batchLoads: moved.batchLoads, numBatches };
    },
    trafficBytes: (link) => {
      const { weights, movements } = work();
      return sum(movedBytes(weights, link), scale(1 / load.numRuns, movedBytes(movements, link)));
    },
  };
}

/** One run of a segment. */
interface Run {
  readonly moved: Transfers;
  readonly stageSeconds: Segment['stageSeconds'];
  readonly numBatches: number;
  /** Handing tasks over, for all GPU batches. */
  readonly handOvers: Affine;
}

function runOf(hardware: HardwareProfile, load: StepGroup, work: LayerWork): Run {
  const perRun = 1 / load.numRuns;
  const moved = newTransfers();
  for (const movement of work.weights) addMovement(moved, hardware, 1, movement);
  for (const movement of work.movements) addMovement(moved, hardware, perRun, movement);
  const numBatches = perRun * numLaunches(load);
  return {
    moved,
    stageSeconds: {
      compute: scale(perRun, work.compute),
      cpuAttention: scale(perRun, work.cpuAttention),
      ...moved.links,
    },
    numBatches,
    handOvers: constant(numBatches * hardware.taskSeconds.value),
  };
}

/** The compute thread. */
function computing({ moved, stageSeconds, handOvers }: Run): Affine {
  return sum(stageSeconds.compute, stageSeconds.cpuAttention, moved.copies, handOvers);
}

/** Nothing overlaps. */
function serial({ stageSeconds, handOvers }: Run): Affine {
  return sum(serialSeconds(stageSeconds), handOvers);
}

/** Seconds of what one run moves: on each link, and in each task that may hold the run up. */
interface Transfers {
  readonly links: Readonly<Record<Link, AffineSum>>;
  /** Inside `compute`. */
  readonly copies: AffineSum;
  /** Loads of KV cache and activations. */
  readonly batchLoads: AffineSum;
  /** Loads and stores of activations. */
  readonly hiddenStates: AffineSum;
  /** Disk, then link, one after the other. */
  readonly weightsFromDisk: AffineSum;
  readonly kvCacheFromDisk: AffineSum;
  readonly activationsFromDisk: AffineSum;
  /** Link, then disk. */
  readonly kvCacheStores: AffineSum;
  readonly activationStores: AffineSum;
}

function newTransfers(): Transfers {
  return {
    links: {
      cpuToGpu: new AffineSum(),
      gpuToCpu: new AffineSum(),
      diskToCpu: new AffineSum(),
      cpuToDisk: new AffineSum(),
    },
    copies: new AffineSum(),
    batchLoads: new AffineSum(),
    hiddenStates: new AffineSum(),
    weightsFromDisk: new AffineSum(),
    kvCacheFromDisk: new AffineSum(),
    activationsFromDisk: new AffineSum(),
    kvCacheStores: new AffineSum(),
    activationStores: new AffineSum(),
  };
}

function addMovement(to: Transfers, hardware: HardwareProfile, times: number, movement: Movement): void {
  const { task, link, home, share } = movement;
  const seconds = times * transferSeconds(hardware, movement);
  to.links[link].add(seconds, share);
  if (task === 'compute') to.copies.add(seconds, share);
  if (task === 'loadKvCache' || task === 'loadActivations') to.batchLoads.add(seconds, share);
  if (task === 'loadActivations' || task === 'storeActivations') to.hiddenStates.add(seconds, share);
  if (task === 'storeKvCache') to.kvCacheStores.add(seconds, share);
  if (task === 'storeActivations') to.activationStores.add(seconds, share);
  if (home !== 'disk') return;
  if (task === 'loadWeights') to.weightsFromDisk.add(seconds, share);
  if (task === 'loadKvCache') to.kvCacheFromDisk.add(seconds, share);
  if (task === 'loadActivations') to.activationsFromDisk.add(seconds, share);
}

/**
 * With the six tasks side by side, no run is shorter than
 * - the compute thread: device and CPU attention take turns, with the copies of q and output between them;
 * - any link;
 * - one GPU batch's way through the layer: its hidden states come, it computes, they go (binding with few batches);
 * - any other task's thread: it waits for the disk before it copies on, and copies before it writes to disk. (Weights are
 *   read from disk one layer ahead, but for the first layer of a step: before it there is nothing to load.)
 */
function overlapBounds(run: Run, isFirst: boolean): Affine[] {
  const { moved, numBatches } = run;
  return [
    computing(run),
    scale(1 / numBatches, sum(computing(run), moved.hiddenStates)),
    ...LINKS.map((link) => moved.links[link]),
    moved.kvCacheFromDisk,
    moved.activationsFromDisk,
    ...(isFirst ? [moved.weightsFromDisk] : []),
    moved.kvCacheStores,
    moved.activationStores,
  ];
}

/**
 * KV cache crosses at its own rate where the profile has one, also that from disk: it passes through the same memory.
 */
function transferSeconds(hardware: HardwareProfile, { task, link, bytes, transfers }: Movement): number {
  const { bytesPerSecond, kvCacheBytesPerSecond = bytesPerSecond, latencySeconds } = linkRate(hardware, link)!;
  const isKvCache = task === 'loadKvCache' || task === 'storeKvCache';
  const rate = isKvCache ? kvCacheBytesPerSecond : bytesPerSecond;
  return bytes / rate.value + transfers * latencySeconds.value;
}

function movedBytes(movements: readonly Movement[], link: Link): Affine {
  const total = new AffineSum();
  for (const movement of movements) if (movement.link === link) total.add(movement.bytes, movement.share);
  return total;
}
