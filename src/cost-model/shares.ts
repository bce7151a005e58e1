/**
 * How a placement shares out bytes, rows and sequences. Two readings of the same questions, so that every formula on
 * top of them is written once: planned fractions (answers affine in the placement variables: what the LP sees) and
 * realised slices (answers that are constants, counted row by row and slot by slot: what the engine will do).
 */
import type { ModelConfig } from '../models/model-config.js';
import { layerTensors, rowBytes, type LayerKind, type TensorSpec, type WeightBits } from '../models/tensors.js';
import { remembered, rememberedFor } from '../remembered.js';
import { tensorRows, type Realisation } from '../policy/realisation.js';
import type { Device, Tier } from '../tiers.js';
import type { Amount } from '../workload/sequences.js';
import { constant, minus, scale, sum, variable, ZERO, type Affine } from './affine.js';
import type { BatchShape } from './cost-terms.js';
import { isInChunks, largestBatchOf, pickSlots, totalOf, type BlockSet, type Selection } from './block-sets.js';
import { liveInstances, type StepRange } from './loads.js';

/** Where a sequence keeps its KV cache, and whether the CPU attends to it or it moves to the device. */
export type KvHome = 'gpu' | 'cpuMoved' | 'cpuAttended' | 'diskMoved' | 'diskAttended';

/** `amount` x `share`. Planned: all that there is, times its fraction. Realised: what was counted, times 1. */
export interface Portion {
  readonly amount: number;
  readonly share: Affine;
}

/** Answers are remembered by the identity of `homes`: pass constants. */
export interface SlotShares<Home> {
  /** Of an amount summed over all sequences of the set, the part of those at these homes. */
  total(set: BlockSet, homes: readonly Home[], amount: Amount): Portion;
  /** GPU batches x steps in which a sequence at these homes is live. */
  liveBatches(set: BlockSet, homes: readonly Home[], range: StepRange): Portion;
  /**
   * The most that one GPU batch (chunk) sums up at these homes. Planned chunks: they may be wholly there, whatever the
   * fraction.
   */
  largestBatch(set: BlockSet, homes: readonly Home[], amount: Amount): Portion;
}

/** Tensors of a layer: streamed to the device; with a home of their own; packed in 4 bits; read by row. */
export type TensorPick = 'streamed' | 'placed' | 'packed' | 'tables';

interface WeightShares {
  /** Bytes on the tier of the layer's tensors. */
  bytes(kind: LayerKind, tier: Tier, pick: TensorPick): Portion;
  /** How many of them have rows there. */
  tensors(kind: LayerKind, tier: Tier, pick: TensorPick): Portion;
  /** 1 if any of them has rows there, else 0. */
  anyTensor(kind: LayerKind, tier: Tier, pick: TensorPick): Portion;
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

/** A portion as a term. */
export function portionTerm({ amount, share }: Portion, factor = 1): Affine {
  return scale(factor * amount, share);
}

function isPicked(pick: TensorPick, tensor: TensorSpec, model: ModelConfig, weightBits: WeightBits): boolean {
  switch (pick) {
    case 'streamed':
      return tensor.kind === 'matrix';
    case 'placed':
      return tensor.kind !== 'vector';
    case 'packed':
      return tensor.kind !== 'vector' && tensor.quantizable && weightBits === 4;
    case 'tables':
      return tensor.kind === 'table' || (model.tiedEmbeddings && tensor.role === 'head');
  }
}

const PICKS: readonly TensorPick[] = ['streamed', 'placed', 'packed', 'tables'];

/** Bytes and number of tensors of each layer. */
const layerTotals = rememberedFor((model: ModelConfig, weightBits: WeightBits) => {
  const ofPick = (kind: LayerKind, pick: TensorPick) => {
    const tensors = layerTensors(model, kind).filter((tensor) => isPicked(pick, tensor, model, weightBits));
    const bytes = tensors.reduce((total, tensor) => total + tensor.rows * rowBytes(model, tensor, weightBits), 0);
    return { bytes, count: tensors.length };
  };
  const ofLayer = (kind: LayerKind) =>
    Object.fromEntries(PICKS.map((pick) => [pick, ofPick(kind, pick)])) as Record<
      TensorPick,
      ReturnType<typeof ofPick>
    >;
  return { embed: ofLayer('embed'), decoder: ofLayer('decoder'), head: ofLayer('head') };
});

/** Planned fractions. */
export function plannedShares(model: ModelConfig, shape: BatchShape, device: Device): Shares {
  const share = (tier: Tier) => variable(`weights.${tier}`);
  const totals = layerTotals(model, shape.weightBits);
  return {
    weights: {
      bytes: (kind, tier, pick) => ({ amount: totals[kind][pick].bytes, share: share(tier) }),
      tensors: (kind, tier, pick) => ({ amount: totals[kind][pick].count, share: share(tier) }),
      anyTensor: (kind, tier, pick) => ({ amount: Math.min(1, totals[kind][pick].count), share: share(tier) }),
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
    largestBatch: (set, homes, amount) => ({
      amount: largestBatchOf(set, amount),
      share: isInChunks(set) ? ONE : share(homes),
    }),
  };
}

const MOVED_HOME: Readonly<Record<Tier, KvHome>> = { gpu: 'gpu', cpu: 'cpuMoved', disk: 'diskMoved' };
const ATTENDED_HOME: Readonly<Record<Tier, KvHome>> = { gpu: 'gpu', cpu: 'cpuAttended', disk: 'diskAttended' };

/** Of a realised slot. */
export function kvHomeOf({ tier, cpuAttention }: { readonly tier: Tier; readonly cpuAttention: boolean }): KvHome {
  return (cpuAttention ? ATTENDED_HOME : MOVED_HOME)[tier];
}

/** Realised slices. */
export function realisedShares(model: ModelConfig, shape: BatchShape, realisation: Realisation): Shares {
  const { weightBits } = shape;
  const countTensors = (
    kind: LayerKind,
    tier: Tier,
    pick: TensorPick,
    value: (rows: number, rowSize: number) => number,
  ) => {
    let total = 0;
    layerTensors(model, kind).forEach((tensor, t) => {
      const rows = tensorRows(realisation.weights[kind][t]!)[tier];
      if (rows > 0 && isPicked(pick, tensor, model, weightBits))
        total += value(rows, rowBytes(model, tensor, weightBits));
    });
    return total;
  };
  const rowRange = (kind: LayerKind, role: string, tier: Tier) => {
    const { rows, gpuRows, cpuRows } = realisation.weights[kind].find((tensor) => tensor.role === role)!;
    const begin = { gpu: 0, cpu: gpuRows, disk: gpuRows + cpuRows }[tier];
    const end = { gpu: gpuRows, cpu: gpuRows + cpuRows, disk: rows }[tier];
    return { begin, end };
  };
  const { kvCache, activations } = realisation.slots;
  return {
    weights: {
      bytes: (kind, tier, pick) => counted(countTensors(kind, tier, pick, (rows, rowSize) => rows * rowSize)),
      tensors: (kind, tier, pick) => counted(countTensors(kind, tier, pick, () => 1)),
      anyTensor: (kind, tier, pick) =>
        counted(
          Math.min(
            1,
            countTensors(kind, tier, pick, () => 1),
          ),
        ),
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
    kvCache: realisedSlots(kvCache, kvHomeOf),
    activations: realisedSlots(activations, ({ tier }) => tier),
  };
}

interface SlotRun {
  readonly first: number;
  readonly end: number;
}

function realisedSlots<Run extends SlotRun, Home>(runs: readonly Run[], homeOf: (run: Run) => Home): SlotShares<Home> {
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

/** A portion that was counted. */
export function counted(amount: number): Portion {
  return { amount, share: ONE };
}
