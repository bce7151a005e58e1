/** The kernels between the matmuls: how many launches a layer takes, and the bytes that they stream through memory. */
import { BYTES_PER_ELEMENT, type ModelConfig } from '../models/model-config.js';

const FLOAT_BYTES = 4;

/** Gather of embedding rows, widening them. */
export const EMBED_LAUNCHES = 2;
/** Widening of the hidden states, final norm, logits. */
export const HEAD_LAUNCHES = 3;

/**
 * Launches of one decoder layer for one GPU batch: widen the hidden states, norm, q k v, store KV, attention, o, add,
 * norm, up (and gate), activation, down, add, round the hidden states; with rope, q/k norms and experts, more.
 */
export function decoderLaunches(model: ModelConfig, expertsTouched: number): number {
  const dense = 13;
  const rope = model.positions.kind === 'rope' ? 2 : 0;
  const qkNorm = model.qkNorm ? 2 : 0;
  const mixture = model.experts ? 1 + 3 * (expertsTouched - 1) : 0;
  return dense + rope + qkNorm + mixture;
}

/** Bytes per token that one decoder layer's kernels between the matmuls read and write, in fp32 but for the hidden states at home. */
export function elementwiseBytes(model: ModelConfig): number {
  const { hiddenSize, ffnSize, headDim, numHeads, numKvHeads } = model;
  const norms = 2 * 2 * hiddenSize;
  const adds = 2 * 3 * hiddenSize;
  const activation = (model.gatedMlp ? 3 : 2) * ffnSize * (model.experts?.activePerToken ?? 1);
  const heads =
    2 * (numHeads + numKvHeads) * headDim * ((model.positions.kind === 'rope' ? 1 : 0) + (model.qkNorm ? 1 : 0));
  const conversion = 2 * hiddenSize * (FLOAT_BYTES + BYTES_PER_ELEMENT[model.dtype]);
  return FLOAT_BYTES * (norms + adds + activation + heads) + conversion;
}
