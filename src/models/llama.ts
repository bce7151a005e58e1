/** Llama 2 and 3, and Mistral, which adds a sliding window. What they share is also the ground of Qwen and Mixtral. */
import { type ConfigFields, dataType } from './config-fields.js';
import type { ModelShape } from './config-reader.js';
import { ropePositions } from './rope-config.js';

const ACTIVATIONS = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_new: 'geluTanh',
  gelu_pytorch_tanh: 'geluTanh',
  relu: 'relu',
} as const;

/** What the families write when they leave a field out. */
export interface RmsDecoderDefaults {
  readonly normEpsilon: number;
  readonly ropeTheta: number;
}

const LLAMA_DEFAULTS: RmsDecoderDefaults = { normEpsilon: 1e-6, ropeTheta: 10_000 };

/** A decoder with RMS norms, rotary positions, grouped-query attention and a gated MLP, without biases. */
export function readRmsDecoder(fields: ConfigFields, defaults: RmsDecoderDefaults): ModelShape {
  const hiddenSize = fields.count('hidden_size');
  const numHeads = fields.count('num_attention_heads');
  return {
    dtype: dataType(fields),
    numLayers: fields.parts('num_hidden_layers'),
    hiddenSize,
    ffnSize: fields.count('intermediate_size'),
    numHeads,
    numKvHeads: fields.count('num_key_value_heads', numHeads),
    headDim: headDim(fields, hiddenSize, numHeads),
    vocabSize: fields.count('vocab_size'),
    maxPositions: fields.count('max_position_embeddings'),
    embeddingSize: hiddenSize,
    tiedEmbeddings: fields.flag('tie_word_embeddings', false),
    norm: 'rmsNorm',
    normEpsilon: fields.positive('rms_norm_eps', defaults.normEpsilon),
    normPlacement: 'pre',
    finalNorm: true,
    positions: ropePositions(fields, defaults.ropeTheta),
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: false,
    gatedMlp: true,
    activation: fields.word('hidden_act', ACTIVATIONS, 'silu'),
  };
}

function headDim(fields: ConfigFields, hiddenSize: number, numHeads: number): number {
  if (fields.get('head_dim') === undefined && hiddenSize % numHeads !== 0) {
    throw fields.wrong('num_attention_heads', `a divisor of hidden_size (${hiddenSize}), or head_dim to be given`);
  }
  const size = fields.count('head_dim', hiddenSize / numHeads);
  if (size % 2 !== 0) throw fields.wrong('head_dim', 'even, since rotary positions turn pairs');
  return size;
}

export function readLlama(fields: ConfigFields): ModelShape {
  const bias = fields.flag('attention_bias', false);
  return {
    ...readRmsDecoder(fields, LLAMA_DEFAULTS),
    qkvBias: bias,
    outputBias: bias,
    mlpBias: fields.flag('mlp_bias', false),
  };
}

export function readMistral(fields: ConfigFields): ModelShape {
  return { ...readRmsDecoder(fields, LLAMA_DEFAULTS), ...slidingWindow(fields) };
}

/** A window that holds in every layer. */
export function slidingWindow(fields: ConfigFields): Pick<ModelShape, 'slidingWindow'> {
  return fields.get('sliding_window') === undefined ? {} : { slidingWindow: fields.count('sliding_window') };
}
