/**
 * The kernels of a layer besides its matmuls: how many launches they take, and the bytes that they stream through
 * memory.
 */
import { BYTES_PER_ELEMENT, FLOAT_BYTES, type ModelConfig } from '../models/model-config.js';
import type { Device } from '../tiers.js';

/** On CPUs a kernel over fewer elements runs on the calling thread: that costs no launch. */
const LEAST_ELEMENTS_TO_SHARE = 16384;

/** One launch of a layer: tokens of how many sequences. */
export interface LaunchSize {
  readonly tokens: number;
  readonly sequences: number;
}

/**
 * Launches of one decoder layer for one GPU batch: matmuls q k v, o, up (with gate), down, and attention; between them
 * kernels over tokens x size elements; with experts, the router and the MLP of each expert that is touched. CUDA
 * multiplies by all experts in one launch, beside which it routes tokens and gathers them.
 */
export function decoderLaunches(
  model: ModelConfig,
  device: Device,
  { tokens, sequences }: LaunchSize,
  expertsTouched: number,
): number {
  const { hiddenSize, ffnSize, headDim, numHeads, numKvHeads } = model;
  const isGrouped = model.experts !== undefined && device === 'cuda';
  const mlps = model.experts && !isGrouped ? expertsTouched : 1;
  const mlpTokens = (tokens * (model.experts?.activePerToken ?? 1)) / mlps;
  const launches = (elements: number) => (device === 'cuda' || elements > LEAST_ELEMENTS_TO_SHARE ? 1 : 0);
  const hiddenKernels = 6; // widen, norm, add, norm, add, round
  const headKernels = (model.positions.kind === 'rope' ? 1 : 0) + (model.qkNorm ? 1 : 0);
  const matmuls = 3 + 2 * mlps + (model.experts ? 1 : 0); // attention counts as one
  const grouped = isGrouped ? 2 + (model.gatedMlp ? 1 : 0) : 0; // gate and up apart
  return (
    matmuls +
    grouped +
    hiddenKernels * launches(tokens * hiddenSize) +
    headKernels * (launches(tokens * numHeads * headDim) + launches(tokens * numKvHeads * headDim)) +
    mlps * launches(mlpTokens * ffnSize) +
    (device === 'cuda' ? 1 : sequences * launches((2 * numKvHeads * headDim * tokens) / sequences)) // storing KV rows
  );
}

/** Launches of `embed`: gathered rows are widened, positions added, hidden states rounded. */
export function embedLaunches(model: ModelConfig, device: Device, { tokens }: LaunchSize): number {
  const kernels = model.positions.kind === 'learned' ? 4 : 2;
  const elements = tokens * Math.max(model.embeddingSize, model.hiddenSize);
  const projection = model.embeddingSize === model.hiddenSize ? 0 : 1;
  return projection + (device === 'cuda' || elements > LEAST_ELEMENTS_TO_SHARE ? kernels : 0);
}

/** Launches of `head`: the matmul (two with a projection) and sampling, final norm on devices where it is one. */
export function headLaunches(model: ModelConfig, device: Device): number {
  return (model.embeddingSize === model.hiddenSize ? 2 : 3) + (device === 'cuda' ? 2 : 0);
}

/**
 * Bytes per token that one decoder layer's kernels between the matmuls read and write, in fp32 but for the hidden
 * states at home.
 */
export function elementwiseBytes(model: ModelConfig): number {
  const { hiddenSize, ffnSize, headDim, numHeads, numKvHeads } = model;
  const norms = 2 * 2 * hiddenSize;
  const adds = 2 * 3 * hiddenSize;
  const activation = (model.gatedMlp ? 3 : 2) * ffnSize * (model.experts?.activePerToken ?? 1);
  const headKernels = (model.positions.kind === 'rope' ? 1 : 0) + (model.qkNorm ? 1 : 0);
  const heads = 2 * (numHeads + numKvHeads) * headDim * headKernels;
  const conversion = 2 * hiddenSize * (FLOAT_BYTES + BYTES_PER_ELEMENT[model.dtype]);
  return FLOAT_BYTES * (norms + adds + activation + heads) + conversion;
}
