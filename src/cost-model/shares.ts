/**
 * How a placement shares out bytes, rows and sequences. Two readings of the same questions, so that every formula on top
 * of them is written once: planned fractions (answers affine in the placement variables: what the LP sees) and realised
 * slices (answers that are constants, counted row by row and slot by slot: what the engine will do).
 */
import type { ModelConfig } from '../models/model-config.js';
import { layerTensors, rowBytes, type LayerKind, type TensorSpec } from '../models/tensors.js';
import { remembered } from '../remembered.js';
import { tensorRows, type Realisation } from '../policy/realisation.js';
import type { Device, Tier } from '../tiers.js';
import type { Amount } from '../workload/sequences.js';
import { constant, minus, scale, sum, variable, ZERO, type Affine } from './affine.js';
import type { BatchShape } from './cost-terms.js';
import { largestBatchOf, pickSlots, totalOf, type BlockSet, type Selection } from './block-sets.js';
import { liveInstances, type StepRange } from './loads.js';

/** Where a sequence keeps its KV cache, and whether the CPU attends to it or it moves to the device. */
export type KvHome = 'gpu' | 'cpuMoved' | 'cpuAttended' | 'diskMoved' | 'diskAttended';

/** `amount` x `share`. Planned: all that there is, times its fraction. Realised: what was counted, times 1. */
export interface Portion {
  readonly amount: number;
  readonly share: Affine;
}

/** Answers are remembered by the identity of `homes`: pass constants. */
interface SlotShares<Home> {
  /** Of an amount summed over all sequences of the set, the part of those at these homes. */
  total(set: BlockSet, homes: readonly Home[], amount: Amount): Portion;
  /** GPU batches x steps in which a sequence at these homes is live. */
  liveBatches(set: BlockSet, homes: readonly Home[], range: StepRange): Portion;
  /** The most that one GPU batch sums up at these homes. */
  largestBatch(set: BlockSet, homes: readonly Home[], amount: Amount): Portion;
}

interface WeightShares {
  /** Bytes on the tier of the layer's tensors that `counts` picks. */
  bytes(kind: LayerKind, tier: Tier, counts: (tensor: TensorSpec) => boolean): Portion;
  /** How many of them have rows there. */
  tensors(kind: LayerKind, tier: Tier, counts: (tensor: TensorSpec) => boolean): Portion;
  /** 1 if any of them has rows there, else 0. */
  anyTensor(kind: LayerKind, tier: Tier, counts: (tensor: TensorSpec) => boolean): Portion;
  /** Of the rows `0 <= row < numRows` of a table, those on the tier. */
  rows(kind: LayerKind, role: string, tier: Tier, numRows: number): Portion;
  /** Of `count` rows of a table from row `first` on for each sequence of the set, those on the tier. */
  rowsOfSequences(set: BlockSet, kind: LayerKind, role: string, tier: Tier, first: Amount, count: Amount): Portion;
}

export interface Shares {
  readonly weights: WeightShares;
  readonly kvCache: SlotShares<KvHome>;
  readonly activations: SlotShares<Tier>;
}

export const isStreamed = (tensor: TensorSpec): boolean => tensor.kind === 'matrix';
export const isPlaced = (tensor: TensorSpec): boolean => tensor.kind !== 'vector';

/** A portion as a term. */
export function portionTerm({ amount, share }: Portion, factor = 1): Affine {
  return scale(factor * amount, share);
}

/** Planned fractions. */
export function plannedShares(model: ModelConfig, shape: BatchShape, device: Device): Shares {
  const share = (tier: Tier) => variable(`weights.${tier}`);
  return {
    weights: {
      bytes: (kind, tier, counts) => ({
        amount: sumTensors(model, kind, counts, (tensor) => tensor.rows * rowBytes(model, tensor, shape.weightBits)),
        share: share(tier),
      }),
      tensors: (kind, tier, counts) => ({ amount: sumTensors(model, kind, counts, () => 1), share: share(tier) }),
      anyTensor: (kind, tier, counts) => ({
        amount: layerTensors(model, kind).some(counts) ? 1 : 0,
        share: share(tier),
      }),
      rows: (_kind, _role, tier, numRows) => ({ amount: numRows, share: share(tier) }),
      rowsOfSequences: (set, _kind, _role, tier, _first, count) => ({
        amount: totalOf(set, count),
        share: share(tier),
      }),
    },
    kvCache: plannedSlots((home) => kvShare(home, device)),
    activations: plannedSlots((tier) => variable(`activations.${tier}`)),
  };
}

function kvShare(home: KvHome, device: Device): Affine {
  const attendsBeside = device !== 'cpu';
  switch (home) {
    case 'gpu':
      return variable('kvCache.gpu');
    case 'cpuAttended':
      return attendsBeside ? variable('kvCpuAttended') : ZERO;
    case 'diskAttended':
      return attendsBeside ? variable('kvDiskCpuAttended') : ZERO;
    case 'cpuMoved':
      return minus(variable('kvCache.cpu'), kvShare('cpuAttended', device));
    case 'diskMoved':
      return minus(variable('kvCache.disk'), kvShare('diskAttended', device));
  }
}

function plannedSlots<Home>(shareOfHome: (home: Home) => Affine): SlotShares<Home> {
  const share = remembered((homes: readonly Home[]) => sum(...homes.map(shareOfHome)));
  return {
    total: (set, homes, amount) => ({ amount: totalOf(set, amount), share: share(homes) }),
    liveBatches: (set, homes, range) => ({ amount: liveInstances(set.longest, range), share: share(homes) }),
    largestBatch: (set, homes, amount) => ({ amount: largestBatchOf(set, amount), share: share(homes) }),
  };
}

const MOVED_HOME: Readonly<Record<Tier, KvHome>> = { gpu: 'gpu', cpu: 'cpuMoved', disk: 'diskMoved' };
const ATTENDED_HOME: Readonly<Record<Tier, KvHome>> = { gpu: 'gpu', cpu: 'cpuAttended', disk: 'diskAttended' };

/** Realised slices. */
export function realisedShares(model: ModelConfig, shape: BatchShape, realisation: Realisation): Shares {
  const rowsOn = (kind: LayerKind, t: number, tier: Tier) => tensorRows(realisation.weights[kind][t]!)[tier];
  const bytesOn = (kind: LayerKind, tensor: TensorSpec, t: number, tier: Tier) =>
    rowsOn(kind, t, tier) * rowBytes(model, tensor, shape.weightBits);
  const rowRange = (kind: LayerKind, role: string, tier: Tier) => {
    const { rows, gpuRows, cpuRows } = realisation.weights[kind].find((tensor) => tensor.role === role)!;
    const begin = { gpu: 0, cpu: gpuRows, disk: gpuRows + cpuRows }[tier];
    const end = { gpu: gpuRows, cpu: gpuRows + cpuRows, disk: rows }[tier];
    return { begin, end };
  };
  const { kvCache, activations } = realisation.slots;
  return {
    weights: {
      bytes: (kind, tier, counts) => counted(sumTensors(model, kind, counts, (s, t) => bytesOn(kind, s, t, tier))),
      tensors: (kind, tier, counts) =>
        counted(sumTensors(model, kind, counts, (_, t) => (rowsOn(kind, t, tier) > 0 ? 1 : 0))),
      anyTensor: (kind, tier, counts) =>
        counted(layerTensors(model, kind).some((s, t) => counts(s) && rowsOn(kind, t, tier) > 0) ? 1 : 0),
      rows: (kind, role, tier, numRows) => {
        const { begin, end } = rowRange(kind, role, tier);
        return counted(Math.max(0, Math.min(numRows, end) - begin));
      },
      rowsOfSequences: (set, kind, role, tier, first, count) => {
        const { begin, end } = rowRange(kind, role, tier);
        if (begin === end) return counted(0);
        const onTier: Amount = (length) =>
          Math.max(0, Math.min(first(length) + count(length), end) - Math.max(first(length), begin));
        return counted(totalOf(set, onTier));
      },
    },
    kvCache: realisedSlots(kvCache, ({ tier, cpuAttention }) => (cpuAttention ? ATTENDED_HOME : MOVED_HOME)[tier]),
    activations: realisedSlots(activations, ({ tier }) => tier),
  };
}

interface SlotRun {
  readonly first: number;
  readonly end: number;
}

function realisedSlots<Run extends SlotRun, Home>(
  runs: readonly Run[],
  homeOf: (run: Run) => Home,
): SlotShares<Home> {
  const picked = remembered((homes: readonly Home[]) => {
    const ranges = runs.filter((run) => homes.includes(homeOf(run)));
    return remembered((set: BlockSet): Selection => pickSlots(set, ranges));
  });
  return {
    total: (set, homes, amount) => counted(totalOf(picked(homes)(set), amount)),
    liveBatches: (set, homes, range) => counted(liveInstances(picked(homes)(set).longest, range)),
    largestBatch: (set, homes, amount) => counted(largestBatchOf(picked(homes)(set), amount)),
  };
}

const ONE = constant(1);

function counted(amount: number): Portion {
  return { amount, share: ONE };
}

function sumTensors(
  model: ModelConfig,
  kind: LayerKind,
  counts: (tensor: TensorSpec) => boolean,
  value: (tensor: TensorSpec, index: number) => number,
): number {
  return layerTensors(model, kind).reduce((total, tensor, t) => (counts(tensor) ? total + value(tensor, t) : total), 0);
}
