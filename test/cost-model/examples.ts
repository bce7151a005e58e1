/** Small models with sizes that a person can multiply in the head. */
import type { ModelConfig } from '../../src/models/model-config.js';

/** OPT-like, fp16, tied embeddings, biases everywhere. */
export const tinyModel: ModelConfig = {
  name: 'tiny',
  family: 'opt',
  dtype: 'float16',
  numLayers: 2,
  hiddenSize: 8,
  ffnSize: 32,
  numHeads: 2,
  numKvHeads: 2,
  headDim: 4,
  vocabSize: 50,
  maxPositions: 62,
  embeddingSize: 8,
  tiedEmbeddings: true,
  norm: 'layerNorm',
  normEpsilon: 1e-5,
  normPlacement: 'pre',
  finalNorm: true,
  positions: { kind: 'learned', offset: 2 },
  qkvBias: true,
  outputBias: true,
  mlpBias: true,
  qkNorm: false,
  gatedMlp: false,
  activation: 'relu',
  eosTokenIds: [2],
};

/** Llama-like, fp32, grouped-query attention, gated MLP, its own head. */
export const gatedModel: ModelConfig = {
  ...tinyModel,
  name: 'gated',
  family: 'llama',
  dtype: 'float32',
  numLayers: 3,
  hiddenSize: 64,
  ffnSize: 96,
  numHeads: 4,
  numKvHeads: 2,
  headDim: 16,
  embeddingSize: 64,
  vocabSize: 100,
  tiedEmbeddings: false,
  norm: 'rmsNorm',
  positions: { kind: 'rope', theta: 1e4 },
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  gatedMlp: true,
  activation: 'silu',
};

/** Mixtral-like. */
export const mixtureModel: ModelConfig = {
  ...gatedModel,
  name: 'mixture',
  family: 'mixtral',
  experts: { count: 4, activePerToken: 2, normalizeTopK: true },
};

/** A sequence of gatedModel sees the last 16 tokens only. */
export const slidingModel: ModelConfig = { ...gatedModel, name: 'sliding', slidingWindow: 16 };

/** OPT-350m-like: embeddings of another width, projected in and out. */
export const projectedModel: ModelConfig = {
  ...tinyModel,
  name: 'projected',
  embeddingSize: 4,
  normPlacement: 'post',
  finalNorm: false,
};

export const exampleModels: readonly ModelConfig[] = [
  tinyModel,
  gatedModel,
  mixtureModel,
  slidingModel,
  projectedModel,
];
