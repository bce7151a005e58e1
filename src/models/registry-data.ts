/**
 * Shapes of well-known models, as their `config.json` on the Hugging Face hub gives them, under the hub's names.
 * Each family states what its members share; a row adds what differs.
 */
import type { Experts, ModelConfig } from './model-config.js';

/** What differs inside a family. Left out: headDim = hiddenSize / numHeads, numKvHeads = numHeads. */
type Shape = Pick<ModelConfig, 'numLayers' | 'hiddenSize' | 'numHeads'> &
  Partial<Omit<ModelConfig, 'name' | 'numLayers' | 'hiddenSize' | 'numHeads' | 'embeddingSize'>> & {
    readonly embeddingSize?: number;
  };

type Family = Pick<ModelConfig, 'family' | 'dtype' | 'vocabSize' | 'maxPositions' | 'positions' | 'eosTokenIds'> &
  Partial<ModelConfig>;

const DECODER = {
  tiedEmbeddings: false,
  norm: 'rmsNorm',
  normEpsilon: 1e-5,
  normPlacement: 'pre',
  finalNorm: true,
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  qkNorm: false,
  gatedMlp: true,
  activation: 'silu',
} as const;

function model(family: Family, name: string, shape: Shape): ModelConfig {
  return {
    ffnSize: 4 * shape.hiddenSize,
    numKvHeads: shape.numHeads,
    headDim: shape.hiddenSize / shape.numHeads,
    embeddingSize: shape.hiddenSize,
    ...DECODER,
    ...family,
    ...shape,
    name,
  };
}

const OPT: Family = {
  family: 'opt',
  dtype: 'float16',
  vocabSize: 50272,
  maxPositions: 2048,
  tiedEmbeddings: true,
  norm: 'layerNorm',
  positions: { kind: 'learned', offset: 2 },
  qkvBias: true,
  outputBias: true,
  mlpBias: true,
  gatedMlp: false,
  activation: 'relu',
  bosTokenId: 2,
  eosTokenIds: [2],
};

const GALACTICA: Family = { ...OPT, vocabSize: 50000, activation: 'gelu', bosTokenId: 0 };
/**
 * The two large Galactica checkpoints carry no biases (nor norm scales, which the planner counts: under 0.01 % of the
 * bytes).
 */
const GALACTICA_LARGE: Family = { ...GALACTICA, qkvBias: false, outputBias: false, mlpBias: false };

const LLAMA_2: Family = {
  family: 'llama',
  dtype: 'float16',
  vocabSize: 32000,
  maxPositions: 4096,
  positions: { kind: 'rope', theta: 1e4 },
  bosTokenId: 1,
  eosTokenIds: [2],
};

const LLAMA_3: Family = {
  family: 'llama',
  dtype: 'bfloat16',
  vocabSize: 128256,
  maxPositions: 8192,
  positions: { kind: 'rope', theta: 5e5 },
  bosTokenId: 128000,
  eosTokenIds: [128001],
};

function longContextLlama3(factor: number): Family {
  const scaling = { kind: 'llama3', factor, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 8192 } as const;
  return { ...LLAMA_3, maxPositions: 131072, positions: { kind: 'rope', theta: 5e5, scaling } };
}
const LLAMA_31 = longContextLlama3(8);
const LLAMA_32: Family = { ...longContextLlama3(32), tiedEmbeddings: true };

const MISTRAL: Family = {
  family: 'mistral',
  dtype: 'bfloat16',
  vocabSize: 32768,
  maxPositions: 32768,
  positions: { kind: 'rope', theta: 1e6 },
  bosTokenId: 1,
  eosTokenIds: [2],
};
const MISTRAL_V01: Family = {
  ...MISTRAL,
  vocabSize: 32000,
  positions: { kind: 'rope', theta: 1e4 },
  slidingWindow: 4096,
};
const MIXTRAL: Family = { ...MISTRAL, family: 'mixtral', vocabSize: 32000 };
const TWO_OF_EIGHT: Experts = { count: 8, activePerToken: 2, normalizeTopK: true };

const QWEN_25: Family = {
  family: 'qwen2',
  dtype: 'bfloat16',
  vocabSize: 152064,
  maxPositions: 131072,
  normEpsilon: 1e-6,
  positions: { kind: 'rope', theta: 1e6 },
  qkvBias: true,
  bosTokenId: 151643,
  eosTokenIds: [151643],
};
const QWEN_25_SMALL: Family = { ...QWEN_25, vocabSize: 151936, maxPositions: 32768, tiedEmbeddings: true };

const QWEN_3: Family = {
  family: 'qwen3',
  dtype: 'bfloat16',
  vocabSize: 151936,
  maxPositions: 40960,
  normEpsilon: 1e-6,
  positions: { kind: 'rope', theta: 1e6 },
  qkNorm: true,
  bosTokenId: 151643,
  eosTokenIds: [151645],
};
const QWEN_3_SMALL: Family = { ...QWEN_3, tiedEmbeddings: true };
const QWEN_3_MOE: Family = { ...QWEN_3, family: 'qwen3_moe' };
const EIGHT_OF_128: Experts = { count: 128, activePerToken: 8, normalizeTopK: true };

export const MODELS: readonly ModelConfig[] = [
  model(OPT, 'facebook/opt-125m', { numLayers: 12, hiddenSize: 768, numHeads: 12 }),
  model(OPT, 'facebook/opt-350m', {
    numLayers: 24,
    hiddenSize: 1024,
    numHeads: 16,
    embeddingSize: 512,
    normPlacement: 'post',
    finalNorm: false,
  }),
  model(OPT, 'facebook/opt-1.3b', { numLayers: 24, hiddenSize: 2048, numHeads: 32 }),
  model(OPT, 'facebook/opt-2.7b', { numLayers: 32, hiddenSize: 2560, numHeads: 32 }),
  model(OPT, 'facebook/opt-6.7b', { numLayers: 32, hiddenSize: 4096, numHeads: 32 }),
  model(OPT, 'facebook/opt-13b', { numLayers: 40, hiddenSize: 5120, numHeads: 40 }),
  model(OPT, 'facebook/opt-30b', { numLayers: 48, hiddenSize: 7168, numHeads: 56 }),
  model(OPT, 'facebook/opt-66b', { numLayers: 64, hiddenSize: 9216, numHeads: 72 }),
  model(OPT, 'facebook/opt-175b', { numLayers: 96, hiddenSize: 12288, numHeads: 96 }),

  model(GALACTICA, 'facebook/galactica-1.3b', { numLayers: 24, hiddenSize: 2048, numHeads: 32 }),
  model(GALACTICA, 'facebook/galactica-6.7b', { numLayers: 32, hiddenSize: 4096, numHeads: 32 }),
  model(GALACTICA_LARGE, 'facebook/galactica-30b', { numLayers: 48, hiddenSize: 7168, numHeads: 56 }),
  model(GALACTICA_LARGE, 'facebook/galactica-120b', { numLayers: 96, hiddenSize: 10240, numHeads: 80 }),

  model(LLAMA_2, 'meta-llama/Llama-2-7b-hf', { numLayers: 32, hiddenSize: 4096, ffnSize: 11008, numHeads: 32 }),
  model(LLAMA_2, 'meta-llama/Llama-2-13b-hf', { numLayers: 40, hiddenSize: 5120, ffnSize: 13824, numHeads: 40 }),
  model(LLAMA_2, 'meta-llama/Llama-2-70b-hf', {
    numLayers: 80,
    hiddenSize: 8192,
    ffnSize: 28672,
    numHeads: 64,
    numKvHeads: 8,
  }),
  model(LLAMA_2, 'TinyLlama/TinyLlama-1.1B-Chat-v1.0', {
    numLayers: 22,
    hiddenSize: 2048,
    ffnSize: 5632,
    numHeads: 32,
    numKvHeads: 4,
    maxPositions: 2048,
    dtype: 'bfloat16',
  }),
  model(LLAMA_3, 'meta-llama/Meta-Llama-3-8B', {
    numLayers: 32,
    hiddenSize: 4096,
    ffnSize: 14336,
    numHeads: 32,
    numKvHeads: 8,
  }),
  model(LLAMA_3, 'meta-llama/Meta-Llama-3-70B', {
    numLayers: 80,
    hiddenSize: 8192,
    ffnSize: 28672,
    numHeads: 64,
    numKvHeads: 8,
  }),
  model(LLAMA_31, 'meta-llama/Llama-3.1-8B', {
    numLayers: 32,
    hiddenSize: 4096,
    ffnSize: 14336,
    numHeads: 32,
    numKvHeads: 8,
  }),
  model(LLAMA_31, 'meta-llama/Llama-3.1-70B', {
    numLayers: 80,
    hiddenSize: 8192,
    ffnSize: 28672,
    numHeads: 64,
    numKvHeads: 8,
  }),
  model(LLAMA_31, 'meta-llama/Llama-3.1-405B', {
    numLayers: 126,
    hiddenSize: 16384,
    ffnSize: 53248,
    numHeads: 128,
    numKvHeads: 8,
  }),
  model(LLAMA_32, 'meta-llama/Llama-3.2-1B', {
    numLayers: 16,
    hiddenSize: 2048,
    ffnSize: 8192,
    numHeads: 32,
    numKvHeads: 8,
  }),
  model(LLAMA_32, 'meta-llama/Llama-3.2-3B', {
    numLayers: 28,
    hiddenSize: 3072,
    ffnSize: 8192,
    numHeads: 24,
    numKvHeads: 8,
  }),
  model(LLAMA_31, 'meta-llama/Llama-3.3-70B-Instruct', {
    numLayers: 80,
    hiddenSize: 8192,
    ffnSize: 28672,
    numHeads: 64,
    numKvHeads: 8,
    eosTokenIds: [128001, 128008, 128009],
  }),

  model(MISTRAL_V01, 'mistralai/Mistral-7B-v0.1', {
    numLayers: 32,
    hiddenSize: 4096,
    ffnSize: 14336,
    numHeads: 32,
    numKvHeads: 8,
  }),
  model(MISTRAL, 'mistralai/Mistral-7B-v0.3', {
    numLayers: 32,
    hiddenSize: 4096,
    ffnSize: 14336,
    numHeads: 32,
    numKvHeads: 8,
  }),
  model(MISTRAL, 'mistralai/Mistral-Nemo-Base-2407', {
    numLayers: 40,
    hiddenSize: 5120,
    ffnSize: 14336,
    numHeads: 32,
    numKvHeads: 8,
    headDim: 128,
    vocabSize: 131072,
    maxPositions: 131072,
  }),
  model(MISTRAL, 'mistralai/Mistral-Large-Instruct-2407', {
    numLayers: 88,
    hiddenSize: 12288,
    ffnSize: 28672,
    numHeads: 96,
    numKvHeads: 8,
    maxPositions: 131072,
  }),
  model(MIXTRAL, 'mistralai/Mixtral-8x7B-v0.1', {
    numLayers: 32,
    hiddenSize: 4096,
    ffnSize: 14336,
    numHeads: 32,
    numKvHeads: 8,
    experts: TWO_OF_EIGHT,
  }),
  model(MIXTRAL, 'mistralai/Mixtral-8x22B-v0.1', {
    numLayers: 56,
    hiddenSize: 6144,
    ffnSize: 16384,
    numHeads: 48,
    numKvHeads: 8,
    maxPositions: 65536,
    experts: TWO_OF_EIGHT,
  }),

  model(QWEN_25_SMALL, 'Qwen/Qwen2.5-0.5B', {
    numLayers: 24,
    hiddenSize: 896,
    ffnSize: 4864,
    numHeads: 14,
    numKvHeads: 2,
  }),
  model(QWEN_25_SMALL, 'Qwen/Qwen2.5-1.5B', {
    numLayers: 28,
    hiddenSize: 1536,
    ffnSize: 8960,
    numHeads: 12,
    numKvHeads: 2,
    maxPositions: 131072,
  }),
  model(QWEN_25_SMALL, 'Qwen/Qwen2.5-3B', {
    numLayers: 36,
    hiddenSize: 2048,
    ffnSize: 11008,
    numHeads: 16,
    numKvHeads: 2,
  }),
  model(QWEN_25, 'Qwen/Qwen2.5-7B', { numLayers: 28, hiddenSize: 3584, ffnSize: 18944, numHeads: 28, numKvHeads: 4 }),
  model(QWEN_25, 'Qwen/Qwen2.5-14B', {
    numLayers: 48,
    hiddenSize: 5120,
    ffnSize: 13824,
    numHeads: 40,
    numKvHeads: 8,
    normEpsilon: 1e-5,
  }),
  model(QWEN_25, 'Qwen/Qwen2.5-32B', {
    numLayers: 64,
    hiddenSize: 5120,
    ffnSize: 27648,
    numHeads: 40,
    numKvHeads: 8,
    normEpsilon: 1e-5,
  }),
  model(QWEN_25, 'Qwen/Qwen2.5-72B', {
    numLayers: 80,
    hiddenSize: 8192,
    ffnSize: 29568,
    numHeads: 64,
    numKvHeads: 8,
    normEpsilon: 1e-5,
  }),

  model(QWEN_3_SMALL, 'Qwen/Qwen3-0.6B', {
    numLayers: 28,
    hiddenSize: 1024,
    ffnSize: 3072,
    numHeads: 16,
    numKvHeads: 8,
    headDim: 128,
  }),
  model(QWEN_3_SMALL, 'Qwen/Qwen3-1.7B', {
    numLayers: 28,
    hiddenSize: 2048,
    ffnSize: 6144,
    numHeads: 16,
    numKvHeads: 8,
  }),
  model(QWEN_3_SMALL, 'Qwen/Qwen3-4B', {
    numLayers: 36,
    hiddenSize: 2560,
    ffnSize: 9728,
    numHeads: 32,
    numKvHeads: 8,
    headDim: 128,
  }),
  model(QWEN_3, 'Qwen/Qwen3-8B', { numLayers: 36, hiddenSize: 4096, ffnSize: 12288, numHeads: 32, numKvHeads: 8 }),
  model(QWEN_3, 'Qwen/Qwen3-14B', { numLayers: 40, hiddenSize: 5120, ffnSize: 17408, numHeads: 40, numKvHeads: 8 }),
  model(QWEN_3, 'Qwen/Qwen3-32B', {
    numLayers: 64,
    hiddenSize: 5120,
    ffnSize: 25600,
    numHeads: 64,
    numKvHeads: 8,
    headDim: 128,
  }),
  model(QWEN_3_MOE, 'Qwen/Qwen3-30B-A3B', {
    numLayers: 48,
    hiddenSize: 2048,
    ffnSize: 768,
    numHeads: 32,
    numKvHeads: 4,
    headDim: 128,
    experts: EIGHT_OF_128,
  }),
  model(QWEN_3_MOE, 'Qwen/Qwen3-235B-A22B', {
    numLayers: 94,
    hiddenSize: 4096,
    ffnSize: 1536,
    numHeads: 64,
    numKvHeads: 4,
    headDim: 128,
    experts: EIGHT_OF_128,
  }),
];
