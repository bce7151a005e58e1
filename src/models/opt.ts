/** OPT (and Galactica, which is OPT with GELU). */
import { type ConfigFields, dataType } from './config-fields.js';
import type { ModelShape } from './config-reader.js';

const ACTIVATIONS = { relu: 'relu', gelu: 'gelu' } as const;
/** The position table starts with two rows that the original code kept for padding. */
const POSITION_OFFSET = 2;
/** Torch's default, which OPT never changes. */
const LAYER_NORM_EPSILON = 1e-5;

export function readOpt(fields: ConfigFields): ModelShape {
  fields.require({ layer_norm_elementwise_affine: [true] });
  const hiddenSize = fields.count('hidden_size');
  const numHeads = fields.count('num_attention_heads');
  if (hiddenSize % numHeads !== 0)
    throw fields.wrong('num_attention_heads', `a divisor of hidden_size (${hiddenSize})`);
  const normFirst = fields.flag('do_layer_norm_before', true);
  const bias = fields.flag('enable_bias', true);
  return {
    dtype: dataType(fields),
    numLayers: fields.parts('num_hidden_layers'),
    hiddenSize,
    ffnSize: fields.count('ffn_dim'),
    numHeads,
    numKvHeads: numHeads,
    headDim: hiddenSize / numHeads,
    vocabSize: fields.count('vocab_size'),
    maxPositions: fields.count('max_position_embeddings'),
    embeddingSize: fields.count('word_embed_proj_dim', hiddenSize),
    tiedEmbeddings: fields.flag('tie_word_embeddings', true),
    norm: 'layerNorm',
    normEpsilon: LAYER_NORM_EPSILON,
    normPlacement: normFirst ? 'pre' : 'post',
    finalNorm: normFirst && !fields.flag('_remove_final_layer_norm', false),
    positions: { kind: 'learned', offset: POSITION_OFFSET },
    qkvBias: bias,
    outputBias: bias,
    mlpBias: bias,
    qkNorm: false,
    gatedMlp: false,
    activation: fields.word('activation_function', ACTIVATIONS, 'relu'),
  };
}
