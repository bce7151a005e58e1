/**
 * Bytes that the launches of a GPU batch take beside weights, KV cache and hidden states: docs/schedule.md, "Buffers".
 */
import { FLOAT_BYTES, type ModelConfig } from '../models/model-config.js';
import { kvRowBytes } from '../models/tensors.js';
import { MIB } from '../units.js';
import { prefillChunkTokens } from '../policy/policy.js';
import { reservedTokens } from '../workload/blocks.js';
import { remembered } from '../remembered.js';
import { oneSequence, promptTokensOf, type JobSequences } from '../workload/sequences.js';
import { inLines } from './alignment.js';
import { largestBatchOf, mostBatches, type BlockSet } from './block-sets.js';
import type { BatchShape } from './cost-terms.js';
import { CHUNK_ROWS } from './loads.js';
import type { Setting } from './movement.js';
import type { KvHome } from './shares.js';
import { oneByOne, type WholeJob } from './whole-job.js';

/** Uploads, partial sums of decode attention, cuBLAS; uploads and gathered copies. */
const CUDA_GPU_BYTES = (8 + 32 + 32) * MIB;
const CUDA_HOST_BYTES = (8 + 4) * MIB;
const CUDA_INPUT_BYTES = 2;
const CUDA_INPUT_PAD_COLUMNS = 64;
const MOST_PACKED_FLOATS = 2 * MIB;
const PACKED_COLUMNS = 512;
const FEW_PACKED_COLUMNS = 128;
const PACKED_TILE_TOKENS = 14;
/** Of a token that goes through an expert: token, expert, row, weight. */
const EXPERT_ROW_WORDS = 4;
/** Sparse attention keeps the scores of so many units at once, in so much memory, but of one at least. */
const MOST_SPARSE_UNITS = 128;
const SPARSE_SCORE_BYTES = 64 * MIB;
const SPARSE_QUERY_ROWS = 8;
const CPU_ATTENDED: readonly KvHome[] = ['cpuAttended', 'diskAttended'];

/**
 * On the device that computes: intermediates of the job's largest launch, its logits, its matmuls' inputs, prefixes
 * kept for later ones, scores of sparse attention.
 */
export function deviceLaunchBytes(setting: Setting, job: WholeJob): number {
  const { model, shape, device } = setting;
  const tokens = launchTokens(model, shape, job.batches);
  const inputs = device === 'cuda' ? cudaInputBytes(model, tokens) : packedInputBytes(model, tokens);
  const fixed = device === 'cuda' ? CUDA_GPU_BYTES : 0;
  const kept = sharedPrefixBytes(model, shape, job) + sparseScoreBytes(setting, job);
  return workspaceBytes(model, shape, tokens) + inputs + kept + fixed;
}

/**
 * One layer's KV rows that prompts of a step share with those of GPU batches, or chunks, before theirs: of two prompts
 * at most.
 */
function sharedPrefixBytes(model: ModelConfig, shape: BatchShape, job: WholeJob): number {
  if (shape.numGpuBatches === 1 && mostBatches(job.chunks) === 1) return 0;
  return inLines(2 * longestPrompt(job.batches.sequences) * kvRowBytes(model, shape.kvCacheBits));
}

const longestPrompt = remembered(({ lengths }: JobSequences): number =>
  lengths.reduce((most, { promptTokens }) => Math.max(most, promptTokens), 0),
);

/**
 * On the host of a GPU: what CUDA's copies need, logits to sample; queries, outputs and sparse scores of attention on
 * the CPU.
 */
export function hostLaunchBytes(setting: Setting, job: WholeJob): number {
  const { model, shape, shares, device, hasGpu } = setting;
  const logits = device === 'cuda' ? inLines(FLOAT_BYTES * shape.gpuBatchSize * model.vocabSize) : 0;
  const attention = hasGpu ? inLines(FLOAT_BYTES * shape.gpuBatchSize * 2 * model.numHeads * model.headDim) : 0;
  const isAttended = hasGpu && shares.kvCache.largestBatch(job.batches, CPU_ATTENDED, oneSequence).amount > 0;
  return hostDeviceBytes(setting) + logits + attention + (isAttended ? sparseScoreBytes(setting, job) : 0);
}

/** Where attention is sparse: scores of all positions, for the query rows of a unit and once more in their order. */
function sparseScoreBytes({ model, shape, device }: Setting, job: WholeJob): number {
  if ((shape.sparseValueFraction ?? 1) === 1 || device === 'cuda') return 0;
  const positions = Math.ceil(largestBatchOf(oneByOne(job), reservedTokens) / CHUNK_ROWS) * CHUNK_ROWS;
  const rows = Math.max(SPARSE_QUERY_ROWS, model.numHeads / model.numKvHeads) + 1;
  const unitBytes = FLOAT_BYTES * rows * positions;
  return Math.min(MOST_SPARSE_UNITS * unitBytes, Math.max(SPARSE_SCORE_BYTES, unitBytes));
}

/** On the host of a GPU, from its opening on. */
export function hostDeviceBytes({ device }: Setting): number {
  return device === 'cuda' ? CUDA_HOST_BYTES : 0;
}

/**
 * The most tokens of a launch: a chunk of prompts, or one token of each sequence of a GPU batch. A token of a mixture
 * is a row for each of its experts.
 */
function launchTokens({ experts }: ModelConfig, shape: BatchShape, batches: BlockSet): number {
  const prompts = Math.min(largestBatchOf(batches, promptTokensOf), prefillChunkTokens(shape));
  return Math.max(prompts, largestBatchOf(batches, oneSequence), experts?.activePerToken ?? 1);
}

/** fp32 on every device. */
function workspaceBytes(model: ModelConfig, shape: BatchShape, tokens: number): number {
  const { hiddenSize, ffnSize, numHeads, numKvHeads, headDim, embeddingSize, experts } = model;
  const heads = (2 * numHeads + 2 * numKvHeads) * headDim;
  const perToken =
    2 * hiddenSize +
    (experts ? Math.max(heads, 2 * hiddenSize) : heads) +
    ffnSize * (model.gatedMlp ? 2 : 1) +
    (experts?.count ?? 0) +
    (embeddingSize === hiddenSize ? 0 : embeddingSize);
  const expertRows = experts ? EXPERT_ROW_WORDS * tokens + experts.count : 0;
  return inLines(FLOAT_BYTES * (tokens * perToken + expertRows + shape.gpuBatchSize * model.vocabSize));
}

/** CUDA multiplies inputs in 16 bits. */
function cudaInputBytes(model: ModelConfig, tokens: number): number {
  const columns = Math.ceil(widestInput(model) / CUDA_INPUT_PAD_COLUMNS) * CUDA_INPUT_PAD_COLUMNS;
  return inLines(CUDA_INPUT_BYTES * tokens * columns);
}

/** The CPU packs inputs, so many floats at a time. */
function packedInputBytes(model: ModelConfig, tokens: number): number {
  const widest = widestInput(model);
  const multiple = widest <= PACKED_COLUMNS ? FEW_PACKED_COLUMNS : PACKED_COLUMNS;
  const columns = Math.ceil(widest / multiple) * multiple;
  return FLOAT_BYTES * (Math.min(tokens * columns, MOST_PACKED_FLOATS + columns) + PACKED_TILE_TOKENS * columns);
}

function widestInput({ hiddenSize, numHeads, headDim, ffnSize, embeddingSize }: ModelConfig): number {
  return Math.max(hiddenSize, numHeads * headDim, ffnSize, embeddingSize);
}
