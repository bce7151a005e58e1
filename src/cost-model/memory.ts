/** Peak bytes per tier: docs/schedule.md, "Buffers", row by row. Never below what the engine takes. */
import {
  hiddenBytes,
  kvRowBytes,
  LAYER_KINDS,
  layerCount,
  layerTensors,
  rowBytes,
  type TensorSpec,
} from '../models/tensors.js';
import { BYTES_PER_ELEMENT, type ModelConfig } from '../models/model-config.js';
import { MIB } from '../units.js';
import type { Tier } from '../tiers.js';
import { reservedTokens } from '../workload/blocks.js';
import {
  constant,
  evaluate,
  PLACEMENT_VARIABLES,
  scale,
  sum,
  ZERO,
  type Affine,
  type PlacementPoint,
} from './affine.js';
import { foldAll, unionOf, type Amount, type BlockSet } from './loads.js';
import { isPlaced, isStreamed, type KvHome } from './shares.js';
import type { Setting } from './traffic.js';

const PAGE_BYTES = 4096;
const CACHE_LINE_BYTES = 64;
const FLOAT_BYTES = 4;
const WEIGHT_BUFFERS = 2;
const STAGING_BUFFERS = 3;
const PREFILL_KV_BUFFERS = 2;
const LOAD_STAGING_BYTES = 16 * MIB;
const EMBEDDING_ROWS_IN_FLIGHT = 64;

const KV_HOMES: Readonly<Record<Tier, readonly KvHome[]>> = {
  gpu: ['gpu'],
  cpu: ['cpuMoved', 'cpuAttended'],
  disk: ['diskMoved', 'diskAttended'],
};

/** For each tier the expressions whose maximum is its peak: one for each moment that may be the fullest. `sets`: all blocks of the job. */
export function peakBytes(setting: Setting, sets: readonly BlockSet[]): Record<Tier, Affine[]> {
  const job = wholeJob(sets);
  const device = sum(weightBuffers(setting), workspace(setting, job));
  const gpuBase = sum(homeBytes(setting, job, 'gpu'), device, activationBuffers(setting, job));
  const cpuBase = sum(homeBytes(setting, job, 'cpu'), setting.hasGpu ? diskWeightStaging(setting) : device);
  const cpuRunning = [
    embeddingRowStaging(setting),
    diskKvStaging(setting, job),
    diskActivationStaging(setting, job),
    cpuAttentionWorkspace(setting),
  ];
  const loading = sum(
    weightHomeBytes(setting, 'cpu'),
    setting.hasGpu ? diskWeightStaging(setting) : weightBuffers(setting),
  );
  return {
    gpu: setting.hasGpu
      ? [sum(gpuBase, prefillKvStaging(setting, job)), sum(gpuBase, decodeKvStaging(setting, job))]
      : [ZERO],
    cpu: [sum(loading, constant(loadStaging(setting))), sum(cpuBase, ...cpuRunning)],
    disk: [homeBytes(setting, job, 'disk')],
  };
}

interface Job {
  /** All blocks, cut into GPU batches. */
  readonly batches: BlockSet;
  /** All blocks, each as if it were one batch. */
  readonly blocks: BlockSet;
}

function wholeJob(sets: readonly BlockSet[]): Job {
  const largestBlock = Math.max(...sets.flatMap(({ groups }) => groups.map(({ sequences }) => sequences.length)));
  return { batches: unionOf(sets, sets[0]!.gpuBatchSize), blocks: unionOf(sets, largestBlock) };
}

function homeBytes(setting: Setting, { blocks }: Job, tier: Tier): Affine {
  const { model, shape, shares } = setting;
  const rounded = tier === 'disk' ? inPages : inLines;
  const kvCache: Amount = (length) =>
    model.numLayers * rounded(reservedTokens(length) * kvRowBytes(model, shape.kvCacheBits));
  const activations: Amount = ({ promptTokens }) => rounded(promptTokens * hiddenBytes(model));
  return sum(
    weightHomeBytes(setting, tier),
    shares.kvCache.largestBatch(blocks, KV_HOMES[tier], kvCache),
    shares.activations.largestBatch(blocks, [tier], activations),
  );
}

/** Rows at home, and on the device tier the vectors, each buffer rounded up. */
function weightHomeBytes({ model, shares, hasGpu }: Setting, tier: Tier): Affine {
  const rows = LAYER_KINDS.map((kind) => scale(layerCount(model, kind), shares.weights.bytes(kind, tier, isPlaced)));
  const isDeviceTier = tier === (hasGpu ? 'gpu' : 'cpu');
  return sum(...rows, constant(isDeviceTier ? vectorBytes(model) : 0));
}

function vectorBytes(model: ModelConfig): number {
  const bytes = (tensor: TensorSpec) => (tensor.kind === 'vector' ? inLines(tensor.rows * FLOAT_BYTES) : 0);
  return LAYER_KINDS.reduce(
    (total, kind) =>
      total + layerCount(model, kind) * layerTensors(model, kind).reduce((sumOf, tensor) => sumOf + bytes(tensor), 0),
    0,
  );
}

/** Double buffer for what a layer streams to the device. */
function weightBuffers({ shares, hasGpu }: Setting): Affine {
  const streamed = LAYER_KINDS.map((kind) => {
    const disk = shares.weights.bytes(kind, 'disk', isStreamed);
    if (hasGpu) return sum(shares.weights.bytes(kind, 'cpu', isStreamed), disk);
    return sum(disk, scale(2 * PAGE_BYTES, shares.weights.tensors(kind, 'disk', isStreamed)));
  });
  return scale(WEIGHT_BUFFERS, largest(streamed));
}

function diskWeightStaging({ shares }: Setting): Affine {
  const staged = LAYER_KINDS.map((kind) =>
    sum(
      shares.weights.bytes(kind, 'disk', isStreamed),
      scale(2 * PAGE_BYTES, shares.weights.tensors(kind, 'disk', isStreamed)),
    ),
  );
  return scale(WEIGHT_BUFFERS, largest(staged));
}

/** Only while loading; four times as much where values are packed or widened. */
function loadStaging({ model, shape }: Setting): number {
  const filed = (tensor: TensorSpec) => tensor.rows * tensor.cols * BYTES_PER_ELEMENT[model.dtype];
  const largestTensor = Math.max(...LAYER_KINDS.flatMap((kind) => layerTensors(model, kind).map(filed)));
  const staging = Math.min(LOAD_STAGING_BYTES, largestTensor) + 2 * PAGE_BYTES;
  return shape.weightBits === 4 || model.dtype !== 'float32' ? 4 * staging : staging;
}

/** Embedding rows that lie on disk are read a few at a time. */
function embeddingRowStaging({ model, shape, shares }: Setting): Affine {
  const isTable = (tensor: TensorSpec) => tensor.kind === 'table' || (model.tiedEmbeddings && tensor.role === 'head');
  const staging = LAYER_KINDS.flatMap((kind) =>
    layerTensors(model, kind)
      .filter(isTable)
      .map((table) => {
        const bytes = EMBEDDING_ROWS_IN_FLIGHT * (inPages(rowBytes(model, table, shape.weightBits)) + PAGE_BYTES);
        return scale(
          bytes,
          shares.weights.tensors(kind, 'disk', (tensor) => tensor.role === table.role),
        );
      }),
  );
  return largest(staging);
}

/** Prefill attends on the device, so every slot that is not at home there passes through it. */
function prefillKvStaging({ model, shape, shares }: Setting, { batches }: Job): Affine {
  const rows = ({ promptTokens }: { promptTokens: number }) =>
    inLines(promptTokens * kvRowBytes(model, shape.kvCacheBits));
  return scale(PREFILL_KV_BUFFERS, shares.kvCache.largestBatch(batches, [...KV_HOMES.cpu, ...KV_HOMES.disk], rows));
}

function decodeKvStaging({ model, shape, shares }: Setting, { batches }: Job): Affine {
  const rowOf = kvRowBytes(model, shape.kvCacheBits);
  const moved: Amount = (length) => inLines(reservedTokens(length) * rowOf);
  return scale(
    STAGING_BUFFERS,
    sum(
      shares.kvCache.largestBatch(batches, ['cpuMoved', 'diskMoved'], moved),
      shares.kvCache.largestBatch(batches, ['cpuAttended', 'diskAttended'], () => inLines(rowOf)),
    ),
  );
}

function diskKvStaging({ model, shape, shares }: Setting, { batches }: Job): Affine {
  const reserved: Amount = (length) => inPages(reservedTokens(length) * kvRowBytes(model, shape.kvCacheBits));
  return scale(STAGING_BUFFERS, shares.kvCache.largestBatch(batches, KV_HOMES.disk, reserved));
}

function activationBuffers({ model, shares }: Setting, { batches }: Job): Affine {
  const hidden: Amount = ({ promptTokens }) => inLines(promptTokens * hiddenBytes(model));
  return scale(STAGING_BUFFERS, shares.activations.largestBatch(batches, ['cpu', 'disk'], hidden));
}

function diskActivationStaging({ model, shares }: Setting, { batches }: Job): Affine {
  const hidden: Amount = ({ promptTokens }) => inPages(promptTokens * hiddenBytes(model));
  return scale(STAGING_BUFFERS, shares.activations.largestBatch(batches, ['disk'], hidden));
}

/** fp32 intermediates of the largest launch. */
function workspace({ model, shape }: Setting, { batches }: Job): Affine {
  const { hiddenSize, ffnSize, numHeads, numKvHeads, headDim, embeddingSize, experts } = model;
  const tokens = foldAll(batches, ({ promptTokens }) => promptTokens, { within: 'sum', across: 'max' });
  const heads = (2 * numHeads + 2 * numKvHeads) * headDim;
  const perToken =
    2 * hiddenSize +
    (experts ? Math.max(heads, 2 * hiddenSize) : heads) +
    ffnSize * (model.gatedMlp ? 2 : 1) +
    (experts?.count ?? 0) +
    (embeddingSize === hiddenSize ? 0 : embeddingSize);
  return constant(inLines(FLOAT_BYTES * (tokens * perToken + shape.gpuBatchSize * model.vocabSize)));
}

function cpuAttentionWorkspace({ model, shape, hasGpu }: Setting): Affine {
  return constant(hasGpu ? inLines(FLOAT_BYTES * shape.gpuBatchSize * 2 * model.numHeads * model.headDim) : 0);
}

/** The largest of expressions that are multiples of one another (constants too): it stays so wherever they are evaluated. */
function largest(terms: readonly Affine[]): Affine {
  return terms.reduce(
    (most, term) => (evaluate(term, EVERYWHERE_ONE) > evaluate(most, EVERYWHERE_ONE) ? term : most),
    ZERO,
  );
}

const EVERYWHERE_ONE = Object.fromEntries(PLACEMENT_VARIABLES.map((name) => [name, 1])) as unknown as PlacementPoint;

function inLines(bytes: number): number {
  return Math.ceil(bytes / CACHE_LINE_BYTES) * CACHE_LINE_BYTES;
}

function inPages(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}
