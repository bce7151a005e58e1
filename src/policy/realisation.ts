/**
 * Fractions -> whole slices: what is planned is what is placed. The rules are in docs/schedule.md, "Where bytes live".
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
  type TensorSpec,
} from '../models/tensors.js';
import { TIERS, type Device } from '../tiers.js';
import { jobBlocks, reservedTokens } from '../workload/blocks.js';
import { jobSequences, promptTokensOf, type Amount } from '../workload/sequences.js';
import type { Workload } from '../workload/workload.js';
import { checkFractions } from './check-policy.js';
import {
  blockSize,
  isDiagonal,
  TENSOR_CLASSES,
  type Placement,
  type Policy,
  type TensorClass,
  type TierBytes,
  type TierFractions,
} from './policy.js';
import { diagonalRoom, type Room } from './room.js';
import { realiseSlots, type SlotRuns } from './slots.js';

/**
 * Rows [0, gpuRows) live on gpu, the next cpuRows on cpu, the rest on disk. Vectors: cols = 1, wholly on the device
 * tier.
 */
export interface TensorPlacement {
  readonly role: string;
  readonly rows: number;
  readonly cols: number;
  readonly gpuRows: number;
  readonly cpuRows: number;
}

/** All decoder layers are cut alike, so three patterns describe the model. */
interface WeightPlacement {
  readonly embed: readonly TensorPlacement[];
  readonly decoder: readonly TensorPlacement[];
  readonly head: readonly TensorPlacement[];
}

export interface Realisation {
  /** The nine fractions really placed (weights: of the matrices and tables; vectors always stay on the device). */
  readonly placement: Placement;
  readonly weights: WeightPlacement;
  readonly slots: SlotRuns;
  /** weights: the whole model, vectors included; kvCache, activations: reserved for the largest block. */
  readonly bytes: Readonly<Record<TensorClass, TierBytes>>;
}

/** Rows per tier of one tensor. */
export function tensorRows({ rows, gpuRows, cpuRows }: TensorPlacement): TierBytes {
  return { gpu: gpuRows, cpu: cpuRows, disk: rows - gpuRows - cpuRows };
}

/**
 * The slices that a policy places, deterministically. Throws `bad-input` when fractions do not sum to 1, or when the
 * device has no gpu tier and the policy wants something there.
 */
export function realise(model: ModelConfig, policy: Policy, workload: Workload, device: Device): Realisation {
  checkPlacement(policy, device);
  const weights = {
    embed: cutLayer(model, 'embed', policy, device),
    decoder: cutLayer(model, 'decoder', policy, device),
    head: cutLayer(model, 'head', policy, device),
  };
  const matrices = weightBytes(model, weights, policy.weightBits, (tensor) => tensor.kind !== 'vector');
  const slots = realiseSlots(policy, device);
  const bytes = {
    weights: weightBytes(model, weights, policy.weightBits, () => true),
    ...slotBytes(model, policy, workload, slots, device),
  };
  const placement = {
    weights: fractions(matrices, policy.placement.weights),
    kvCache: fractions(bytes.kvCache, policy.placement.kvCache),
    activations: fractions(bytes.activations, policy.placement.activations),
  };
  return { placement, weights, slots, bytes };
}

/** Throws `bad-input` as `realise` does. */
export function checkPlacement(policy: Pick<Policy, 'placement'>, device: Device): void {
  checkFractions(policy);
  const { placement } = policy;
  const wanted = TENSOR_CLASSES.find((tensorClass) => placement[tensorClass].gpu > 0);
  if (device === 'cpu' && wanted)
    throw new FlexplanError(
      'bad-input',
      `expected placement.${wanted}.gpu to be 0 on a device without gpu tier, got ${placement[wanted].gpu}; move it to cpu`,
    );
}

/** The layer's matrices end to end, cut at the two byte boundaries, each moved to the nearest row boundary. */
function cutLayer(model: ModelConfig, kind: LayerKind, policy: Policy, device: Device): TensorPlacement[] {
  const tensors = layerTensors(model, kind);
  const sizes = tensors.map((tensor) => rowBytes(model, tensor, policy.weightBits));
  const total = tensors.reduce((sum, { kind: k, rows }, t) => (k === 'vector' ? sum : sum + rows * sizes[t]!), 0);
  const { gpu, cpu, disk } = policy.placement.weights;
  const gpuEnd = gpu * total;
  const cpuEnd = disk === 0 ? total : (gpu + cpu) * total;
  let start = 0;
  return tensors.map(({ role, kind: tensorKind, rows, cols }, t) => {
    if (tensorKind === 'vector') return { role, rows, cols, ...wholly(rows, device) };
    const rowsBefore = (end: number) => Math.min(rows, Math.max(0, Math.round((end - start) / sizes[t]!)));
    const gpuRows = rowsBefore(gpuEnd);
    const cpuRows = Math.max(gpuRows, rowsBefore(cpuEnd)) - gpuRows;
    start += rows * sizes[t]!;
    return { role, rows, cols, gpuRows, cpuRows };
  });
}

function wholly(rows: number, device: Device): { gpuRows: number; cpuRows: number } {
  return device === 'cpu' ? { gpuRows: 0, cpuRows: rows } : { gpuRows: rows, cpuRows: 0 };
}

function weightBytes(
  model: ModelConfig,
  weights: WeightPlacement,
  weightBits: Policy['weightBits'],
  counts: (tensor: TensorSpec) => boolean,
): TierBytes {
  const bytes: TierBytes = { gpu: 0, cpu: 0, disk: 0 };
  for (const kind of LAYER_KINDS) {
    const layers = layerCount(model, kind);
    layerTensors(model, kind).forEach((tensor, t) => {
      if (!counts(tensor)) return;
      const rows = tensorRows(weights[kind][t]!);
      const size = layers * rowBytes(model, tensor, weightBits);
      for (const tier of TIERS) bytes[tier] += rows[tier] * size;
    });
  }
  return bytes;
}

/** Reserved bytes per tier: the most that any block of the job needs there. */
function slotBytes(
  model: ModelConfig,
  policy: Policy,
  workload: Workload,
  slots: SlotRuns,
  device: Device,
): { kvCache: TierBytes; activations: TierBytes } {
  const { kvCache, activations } = slots;
  const kvTokenBytes = model.numLayers * kvRowBytes(model, policy.kvCacheBits);
  return {
    kvCache: isDiagonal(policy)
      ? pagedBytes(diagonalRoom(policy, workload, slots, device), kvTokenBytes)
      : mostPerTier(policy, workload, kvCache, reservedTokens, kvTokenBytes),
    activations: mostPerTier(policy, workload, activations, promptTokensOf, hiddenBytes(model)),
  };
}

function pagedBytes({ kvPages: { gpu, cpu, disk }, pageRows }: Room, kvTokenBytes: number): TierBytes {
  const pageBytes = pageRows * kvTokenBytes;
  return { gpu: gpu * pageBytes, cpu: cpu * pageBytes, disk: disk * pageBytes };
}

function mostPerTier(
  policy: Policy,
  workload: Workload,
  runs: SlotRuns['activations'],
  tokens: Amount,
  tokenBytes: number,
): TierBytes {
  const sequences = jobSequences(workload);
  const most: TierBytes = { gpu: 0, cpu: 0, disk: 0 };
  for (const { first, end } of jobBlocks(workload, blockSize(policy))) {
    const bytes: TierBytes = { gpu: 0, cpu: 0, disk: 0 };
    for (const run of runs) {
      const from = Math.min(end, first + run.first);
      bytes[run.tier] += tokenBytes * sequences.sum(tokens, from, Math.min(end, first + run.end));
    }
    for (const tier of TIERS) most[tier] = Math.max(most[tier], bytes[tier]);
  }
  return most;
}

/** A class without bytes keeps the fractions that were asked for. */
function fractions({ gpu, cpu, disk }: TierBytes, asked: TierFractions): TierFractions {
  const total = gpu + cpu + disk;
  return total === 0 ? asked : { gpu: gpu / total, cpu: cpu / total, disk: disk / total };
}
