/** Peak bytes per tier: docs/schedule.md, "Buffers", row by row. Never below what the engine takes. */
import {
  hiddenBytes,
  LAYER_KINDS,
  layerCount,
  layerTensors,
  rowBytes,
  type LayerKind,
  type TensorSpec,
  type WeightBits,
} from '../models/tensors.js';
import { BYTES_PER_ELEMENT, FLOAT_BYTES, type ModelConfig } from '../models/model-config.js';
import { remembered, rememberedFor } from '../remembered.js';
import { MIB } from '../units.js';
import type { Tier } from '../tiers.js';
import { oneSequence, promptTokensOf } from '../workload/sequences.js';
import { CACHE_LINE_BYTES, inLines, inPages, PAGE_BYTES } from './alignment.js';
import { constant, largest, scale, sum, ZERO, type Affine } from './affine.js';
import { mostBatches, type BlockSet } from './block-sets.js';
import { deviceKvStaging, diskKvStaging, kvHomeBytes } from './kv-memory.js';
import { deviceLaunchBytes, hostDeviceBytes, hostLaunchBytes } from './launch-memory.js';
import { portionTerm, type Portion } from './shares.js';
import { EMBEDDING_ROWS_IN_FLIGHT } from './embedding-rows.js';
import { prefillChunkTokens } from '../policy/policy.js';
import type { Setting } from './movement.js';
import { wholeJob, type WholeJob } from './whole-job.js';

const WEIGHT_BUFFERS = 2;
const STAGING_BUFFERS = 3;
const LOAD_CHUNK_BYTES = 16 * MIB;
/**
 * Buffers of a tier besides those of the weights at home; each may be rounded up to a cache line (a page, for direct
 * I/O).
 */
const MOST_BUFFERS = 8;

const ACTIVATION_HOMES: Readonly<Record<Tier, readonly Tier[]>> = { gpu: ['gpu'], cpu: ['cpu'], disk: ['disk'] };
const AWAY_ACTIVATION_HOMES: readonly Tier[] = ['cpu', 'disk'];

/**
 * For each tier the expressions whose maximum is its peak: one for each moment that may be the fullest. `sets`: all
 * blocks of the job.
 */
export function peakBytes(setting: Setting, sets: readonly BlockSet[]): Record<Tier, Affine[]> {
  const job = wholeJob(sets, prefillChunkTokens(setting.shape));
  const rounding = constant(MOST_BUFFERS * (setting.hasGpu ? CACHE_LINE_BYTES : PAGE_BYTES));
  const onDevice = sum(weightBuffers(setting), constant(deviceLaunchBytes(setting, job)), rounding);
  const gpu = [homeBytes(setting, job, 'gpu'), onDevice, activationBuffers(setting, job)];
  const cpu = [
    homeBytes(setting, job, 'cpu'),
    setting.hasGpu ? sum(diskWeightStaging(setting), constant(MOST_BUFFERS * PAGE_BYTES)) : onDevice,
    embeddingRowStaging(setting),
    diskKvStaging(setting, job),
    diskActivationStaging(setting, job),
    constant(hostLaunchBytes(setting, job)),
  ];
  const loading = sum(
    weightHomeBytes(setting, 'cpu'),
    constant(loadStaging(setting.model, setting.shape.weightBits) + hostDeviceBytes(setting)),
  );
  return {
    gpu: setting.hasGpu ? deviceKvStaging(setting, job).map((staging) => sum(...gpu, staging)) : [ZERO],
    cpu: [loading, sum(...cpu)],
    disk: [homeBytes(setting, job, 'disk')],
  };
}

function homeBytes(setting: Setting, job: WholeJob, tier: Tier): Affine {
  const pagedBuffers = tier === 'disk' ? Math.max(setting.shape.numGpuBatches, mostBatches(job.chunks)) : 0;
  return sum(
    weightHomeBytes(setting, tier),
    kvHomeBytes(setting, job, tier),
    activationBytes(setting, job.blocks, tier, pagedBuffers),
  );
}

/** The most hidden states on a tier of a batch (block) of the set, in so many buffers that are rounded up to pages. */
function activationBytes({ model, shares }: Setting, set: BlockSet, tier: Tier, pagedBuffers: number): Affine {
  const { amount: numSlots, share } = shares.activations.largestBatch(set, ACTIVATION_HOMES[tier], oneSequence);
  return sum(
    portionTerm(shares.activations.largestBatch(set, ACTIVATION_HOMES[tier], promptTokensOf), hiddenBytes(model)),
    scale(PAGE_BYTES * Math.min(pagedBuffers, numSlots), share),
  );
}

/** Rows at home, one buffer for each layer, on the device tier the vectors too; 4-bit rows on disk begin at a page. */
function weightHomeBytes({ model, shares, hasGpu }: Setting, tier: Tier): Affine {
  const deviceTier = hasGpu ? 'gpu' : 'cpu';
  const padding = (kind: LayerKind) =>
    tier === 'disk'
      ? portionTerm(shares.weights.tensors(kind, tier, 'packed'), PAGE_BYTES)
      : constant(tier === 'gpu' && !hasGpu ? 0 : CACHE_LINE_BYTES);
  const ofLayer = (kind: LayerKind) => sum(portionTerm(shares.weights.bytes(kind, tier, 'placed')), padding(kind));
  const rows = LAYER_KINDS.map((kind) => scale(layerCount(model, kind), ofLayer(kind)));
  return sum(...rows, constant(tier === deviceTier ? inLines(vectorBytes(model)) : 0));
}

const vectorBytes = remembered((model: ModelConfig): number => {
  const ofLayer = (kind: LayerKind) =>
    layerTensors(model, kind).reduce(
      (total, { kind: k, rows }) => (k === 'vector' ? total + rows * FLOAT_BYTES : total),
      0,
    );
  return LAYER_KINDS.reduce((total, kind) => total + layerCount(model, kind) * ofLayer(kind), 0);
});

/** Double buffer for what a layer streams to the device. */
function weightBuffers({ shares, hasGpu }: Setting): Affine {
  const streamed = LAYER_KINDS.map((kind) => {
    const disk = portionTerm(shares.weights.bytes(kind, 'disk', 'streamed'));
    if (hasGpu) return sum(portionTerm(shares.weights.bytes(kind, 'cpu', 'streamed')), disk);
    return sum(disk, portionTerm(shares.weights.tensors(kind, 'disk', 'streamed'), 2 * PAGE_BYTES));
  });
  return scale(WEIGHT_BUFFERS, largest(streamed));
}

function diskWeightStaging({ shares }: Setting): Affine {
  const staged = LAYER_KINDS.map((kind) =>
    sum(
      portionTerm(shares.weights.bytes(kind, 'disk', 'streamed')),
      portionTerm(shares.weights.tensors(kind, 'disk', 'streamed'), 2 * PAGE_BYTES),
    ),
  );
  return scale(WEIGHT_BUFFERS, largest(staged));
}

/** Only while loading: a chunk of the largest tensor as filed, the same widened, and, where it is packed, packed. */
const loadStaging = rememberedFor((model: ModelConfig, weightBits: WeightBits): number => {
  const tensors = LAYER_KINDS.flatMap((kind) => layerTensors(model, kind));
  const filedRowBytes = ({ cols }: TensorSpec) => cols * BYTES_PER_ELEMENT[model.dtype];
  const chunkOf = (tensor: TensorSpec) =>
    Math.max(filedRowBytes(tensor), Math.min(LOAD_CHUNK_BYTES, tensor.rows * filedRowBytes(tensor)));
  const chunk = Math.max(...tensors.map(chunkOf));
  const packedOf = (tensor: TensorSpec) =>
    weightBits === 4 && tensor.quantizable
      ? Math.min(tensor.rows, Math.floor(chunk / filedRowBytes(tensor))) * rowBytes(model, tensor, 4) + 2 * PAGE_BYTES
      : 0;
  return inPages(chunk + 2 * PAGE_BYTES) + inLines(2 * chunk) + inPages(Math.max(...tensors.map(packedOf)));
});

/** Embedding rows that lie on disk are read a few at a time, each into a window for the widest row of any table. */
function embeddingRowStaging({ model, shape, shares }: Setting): Affine {
  const onDisk = LAYER_KINDS.map((kind) => portionTerm(shares.weights.anyTensor(kind, 'disk', 'tables')));
  const windowBytes = inPages(widestTableRowBytes(model, shape.weightBits)) + PAGE_BYTES;
  return scale(EMBEDDING_ROWS_IN_FLIGHT * windowBytes, largest(onDisk));
}

const widestTableRowBytes = rememberedFor((model: ModelConfig, weightBits: WeightBits): number => {
  const isTable = (tensor: TensorSpec) => tensor.kind === 'table' || (model.tiedEmbeddings && tensor.role === 'head');
  const tables = LAYER_KINDS.flatMap((kind) => layerTensors(model, kind).filter(isTable));
  return Math.max(...tables.map((table) => rowBytes(model, table, weightBits)));
});

function activationBuffers(setting: Setting, job: WholeJob): Affine {
  return portionTerm(largestHiddenStates(setting, job, AWAY_ACTIVATION_HOMES), STAGING_BUFFERS);
}

function diskActivationStaging(setting: Setting, job: WholeJob): Affine {
  const { amount, share } = largestHiddenStates(setting, job, ACTIVATION_HOMES.disk);
  return scale(STAGING_BUFFERS * (amount + (amount > 0 ? PAGE_BYTES : 0)), share);
}

/**
 * The most hidden states at these homes of an item: the prompts of a chunk, or one token of each sequence of a GPU
 * batch.
 */
function largestHiddenStates(
  { model, shares }: Setting,
  { batches, chunks }: WholeJob,
  homes: readonly Tier[],
): Portion {
  const prompts = shares.activations.largestBatch(chunks, homes, promptTokensOf);
  const sequences = shares.activations.largestBatch(batches, homes, oneSequence);
  return { amount: hiddenBytes(model) * Math.max(prompts.amount, sequences.amount), share: prompts.share };
}
