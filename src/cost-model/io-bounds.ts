/**
 * Weight I/O of the block schedules and the least that any schedule needs: FlexGen's appendix A.2 made exact.
 *
 * The model. A sequence (a row of the paper's grid) has columns c = 1..C, C = genTokens x numLayers: one decoder layer
 * for one token each, computed in order. The device holds the weights of one layer; a *load* brings another layer's,
 * and the sequences whose next column is of that layer may then advance by one. With c columns done a sequence keeps
 * F(c) bytes of KV cache and hidden states; F(0) = F(C) = 0, and all sequences together fit into a capacity. With more
 * than one layer a sequence advances once per load.
 *
 * Lower bound. Just before layer j is loaded, every sequence that will advance holds its F(c - 1), all at once, so
 * these sum to at most the capacity M. Over all loads of layer j each sequence contributes each of its genTokens
 * columns of that layer once: loads of layer j >= sum over sequences of S_j / M, where S_j sums F(c - 1) over the
 * sequence's columns c of layer j. And one sequence alone needs genTokens loads of it.
 */
import { FlexplanError } from '../errors.js';
import type { ModelConfig } from '../models/model-config.js';
import {
  hiddenBytes,
  kvRowBytes,
  LAYER_KINDS,
  layerCount,
  layerTensors,
  rowBytes,
  type LayerKind,
} from '../models/tensors.js';
import { blockSize, type Policy } from '../policy/policy.js';
import { TIERS, type Tier } from '../tiers.js';
import type { Workload } from '../workload/workload.js';

/** One kind of sequence. Bytes are those of one token in one layer; hiddenTokenBytes 0 leaves hidden states out. */
export interface SequenceShape {
  readonly numLayers: number;
  readonly promptTokens: number;
  readonly genTokens: number;
  readonly kvTokenBytes: number;
  readonly hiddenTokenBytes: number;
}

export interface SequenceGroup {
  readonly shape: SequenceShape;
  readonly count: number;
}

/** Layer loads of the whole job, and the most bytes that its sequences keep at one time. */
export interface ScheduleIo {
  readonly weightLoads: number;
  readonly peakBytes: number;
}

function numColumns({ numLayers, genTokens }: SequenceShape): number {
  return numLayers * genTokens;
}

/**
 * F(c): prefill keeps promptTokens tokens per finished layer, decode one more per column; and the next column's input.
 */
export function sequenceBytes(shape: SequenceShape, columnsDone: number): number {
  if (columnsDone <= 0 || columnsDone >= numColumns(shape)) return 0;
  const { numLayers, promptTokens, kvTokenBytes, hiddenTokenBytes } = shape;
  const inPrefill = columnsDone < numLayers;
  const kvTokens = Math.min(columnsDone, numLayers) * promptTokens + Math.max(0, columnsDone - numLayers);
  return kvTokenBytes * kvTokens + hiddenTokenBytes * (inPrefill ? promptTokens : 1);
}

/**
 * P: the most that one sequence keeps: at the end of prefill or before the last column, for F grows within each phase.
 */
export function peakSequenceBytes(shape: SequenceShape): number {
  return Math.max(sequenceBytes(shape, shape.numLayers - 1), sequenceBytes(shape, numColumns(shape) - 1));
}

/** S_j, layers counted from 1: F before each of the sequence's columns of one layer, summed over its tokens. */
function layerBytesSum(shape: SequenceShape, layer: number): number {
  const { numLayers, promptTokens, genTokens, kvTokenBytes, hiddenTokenBytes } = shape;
  const steps = genTokens - 1;
  const kvTokens =
    (layer - 1) * promptTokens + steps * (numLayers * promptTokens + layer - 1) + (numLayers * steps * (steps - 1)) / 2;
  return kvTokenBytes * kvTokens + hiddenTokenBytes * ((layer > 1 ? promptTokens : 0) + steps);
}

/** A: F averaged over c = 0..C-1, what a sequence keeps on average while it advances. */
export function meanSequenceBytes(shape: SequenceShape): number {
  let total = 0;
  for (let layer = 1; layer <= shape.numLayers; layer++) total += layerBytesSum(shape, layer);
  return total / numColumns(shape);
}

/** The least layer loads of any schedule, whatever its order, in a capacity of so many bytes for sequences. */
export function leastWeightLoads(groups: readonly SequenceGroup[], capacityBytes: number): number {
  const { numLayers } = groups[0]!.shape;
  if (numLayers < 2) return 1;
  const leastPerLayer = groups.reduce((most, { shape }) => Math.max(most, shape.genTokens), 0);
  let loads = 0;
  for (let layer = 1; layer <= numLayers; layer++) {
    const bytes = groups.reduce((sum, { shape, count }) => sum + count * layerBytesSum(shape, layer), 0);
    loads += Math.max(leastPerLayer, Math.ceil(bytes / capacityBytes));
  }
  return loads;
}

/** The same per sequence in the limit of endlessly many: C A / M. */
export function leastWeightLoadsPerSequence(shape: SequenceShape, capacityBytes: number): number {
  return (numColumns(shape) * meanSequenceBytes(shape)) / capacityBytes;
}

/**
 * Batches of `batchSize` sequences, each run to its end. Row-by-row systems take the GPU's batch; the zig-zag block
 * schedule takes a whole block and shares each load among its GPU batches.
 */
export function rowByRow({ shape, count }: SequenceGroup, batchSize: number): ScheduleIo {
  return {
    weightLoads: numColumns(shape) * Math.ceil(count / batchSize),
    peakBytes: Math.min(count, batchSize) * peakSequenceBytes(shape),
  };
}

/** The largest zig-zag block that fits. Throws `infeasible` when not even one sequence does. */
export function largestBlock(shape: SequenceShape, capacityBytes: number): number {
  const sequences = Math.floor(capacityBytes / peakSequenceBytes(shape));
  if (sequences >= 1) return sequences;
  throw new FlexplanError(
    'infeasible',
    `expected room for one sequence (${peakSequenceBytes(shape)} bytes), got ${capacityBytes} bytes; add memory or shorten it`,
  );
}

/**
 * The diagonal block schedule: groups of `groupSize` sequences, a new one every `stride` tokens, all that are under way
 * advance on each load, oldest first. stride = genTokens is the zig-zag schedule.
 */
export function diagonal(group: SequenceGroup, groupSize: number, stride: number): ScheduleIo {
  const { numLayers, genTokens } = group.shape;
  const numGroups = Math.ceil(group.count / groupSize);
  const tokenSteps = (numGroups - 1) * stride + genTokens;
  // Once the first group has ended, the ages under way repeat with the stride; at the end they only thin out.
  const distinctSteps = Math.min(tokenSteps, genTokens + 2 * stride);
  let peakBytes = 0;
  for (let step = 0; step < distinctSteps; step++)
    peakBytes = Math.max(peakBytes, diagonalStepBytes(group, groupSize, stride, step));
  return { weightLoads: numLayers * tokenSteps, peakBytes };
}

/**
 * Most bytes during one token step. F grows with every column but where a sequence ends prefill (its hidden states
 * shrink to one token) or ends: so the most is before the last layer, or in it with the newest group still to go, or
 * after it.
 */
function diagonalStepBytes({ shape, count }: SequenceGroup, groupSize: number, stride: number, step: number): number {
  const { numLayers, genTokens } = shape;
  let beforeLast = 0;
  let newestToGo = 0;
  let afterLast = 0;
  for (let g = Math.floor(step / stride); g >= 0; g--) {
    const tokensDone = step - g * stride;
    if (tokensDone >= genTokens) break;
    const sequences = Math.min(groupSize, count - g * groupSize);
    if (sequences <= 0) continue;
    const done = tokensDone * numLayers;
    const before = sequences * sequenceBytes(shape, done + numLayers - 1);
    const after = sequences * sequenceBytes(shape, done + numLayers);
    beforeLast += before;
    newestToGo += tokensDone === 0 ? before : after;
    afterLast += after;
  }
  return Math.max(beforeLast, newestToGo, afterLast);
}

/**
 * How many times the least possible weight loads the zig-zag schedule with its largest block may need: (P / A) rho,
 * where rho is what is lost because blocks are whole sequences and the last one may be short. For KV cache alone P / A
 * <= 2: F is concave from 0, so F(c) + F(C-1-c) >= F(C-1). Hence FlexGen's "within 2x" where blocks fit exactly (rho =
 * 1).
 */
export function zigZagFactor({ shape, count }: SequenceGroup, capacityBytes: number): number {
  const peak = peakSequenceBytes(shape);
  const block = largestBlock(shape, capacityBytes);
  const shortBlockLoss = (Math.ceil(count / block) * block) / count;
  const roundingLoss = capacityBytes / (block * peak);
  return (peak / meanSequenceBytes(shape)) * shortBlockLoss * roundingLoss;
}

/**
 * KV tokens that one sequence loads and stores in one layer over its whole generation, the same in every schedule of
 * this model.
 */
export function kvIoTokens({ promptTokens, genTokens }: SequenceShape): number {
  return promptTokens * genTokens + (genTokens * (genTokens - 1)) / 2;
}

/** Tokens of hidden states that one sequence loads and stores over all layers. */
export function hiddenIoTokens({ numLayers, promptTokens, genTokens }: SequenceShape): number {
  return 2 * numLayers * (promptTokens + genTokens - 1);
}

/** Of the whole job, or, when the number of sequences is open, of one of endlessly many full blocks. */
export interface WeightIo {
  readonly weightLoads: number;
  readonly leastWeightLoads: number;
  /** How far the plan's schedule is from any schedule's best: 1 is optimal. */
  readonly ratio: number;
}

/**
 * A plan's decoder-layer loads against the lower bound. `memory`: the capacity of every tier. What the weights leave of
 * all of them together may hold sequences (buffers take some of it, so the true bound is higher still).
 */
export function weightIoAgainstLowerBound(
  model: ModelConfig,
  policy: Policy,
  workload: Workload,
  memory: Readonly<Record<Tier, number>>,
): WeightIo {
  const capacityBytes = TIERS.reduce((sum, tier) => sum + memory[tier], -weightBytes(model, policy.weightBits));
  if (capacityBytes <= 0)
    throw new FlexplanError(
      'infeasible',
      `expected room for the weights, got ${-capacityBytes} bytes too little on all tiers together; add memory`,
    );
  const block = blockSize(policy);
  const shapeOf = ({ promptTokens, genTokens }: { promptTokens: number; genTokens: number }): SequenceShape => ({
    numLayers: model.numLayers,
    promptTokens,
    genTokens,
    kvTokenBytes: kvRowBytes(model, policy.kvCacheBits),
    hiddenTokenBytes: hiddenBytes(model),
  });
  const lengths = workload.sequences ?? [];
  if (lengths.length > 0) {
    const groups = lengths.map((length) => ({ shape: shapeOf(length), count: 1 }));
    let weightLoads = 0;
    for (let first = 0; first < lengths.length; first += block) {
      const steps = Math.max(...lengths.slice(first, first + block).map(({ genTokens }) => genTokens));
      weightLoads += model.numLayers * steps;
    }
    return compared(weightLoads, leastWeightLoads(groups, capacityBytes));
  }
  const shape = shapeOf(workload);
  if (workload.numSequences === undefined)
    return compared(numColumns(shape), block * leastWeightLoadsPerSequence(shape, capacityBytes));
  const group = { shape, count: workload.numSequences };
  return compared(rowByRow(group, block).weightLoads, leastWeightLoads([group], capacityBytes));
}

function weightBytes(model: ModelConfig, weightBits: 16 | 4): number {
  const ofLayer = (kind: LayerKind) =>
    layerTensors(model, kind).reduce((sum, tensor) => sum + tensor.rows * rowBytes(model, tensor, weightBits), 0);
  return LAYER_KINDS.reduce((sum, kind) => sum + layerCount(model, kind) * ofLayer(kind), 0);
}

function compared(weightLoads: number, least: number): WeightIo {
  return { weightLoads, leastWeightLoads: least, ratio: weightLoads / least };
}
