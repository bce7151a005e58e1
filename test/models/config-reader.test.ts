import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { FlexplanError } from '../../src/errors.js';
import { MODEL_FAMILIES, readModelConfig } from '../../src/models/config-reader.js';
import type { ModelConfig } from '../../src/models/model-config.js';

type Json = Record<string, unknown>;

function fixture(name: string): Json {
  return JSON.parse(readFileSync(new URL(`../fixtures/${name}/config.json`, import.meta.url), 'utf8')) as Json;
}

function read(name: string, changes: Json = {}, generationConfig?: unknown): ModelConfig {
  return readModelConfig({ ...fixture(name), ...changes }, 'm', generationConfig);
}

function failure(name: string, changes: Json): FlexplanError {
  try {
    read(name, changes);
  } catch (error) {
    if (error instanceof FlexplanError) return error;
    throw error;
  }
  throw new Error(`expected ${JSON.stringify(changes)} to be refused`);
}

const OPT = 'opt-tiny-fp32';
const LLAMA = 'llama-tiny-fp32';
const MISTRAL = 'mistral-tiny-swa16-fp32';
const QWEN2 = 'qwen2-tiny-fp32';
const QWEN3 = 'qwen3-tiny-fp32';
const MIXTRAL = 'mixtral-tiny-fp32';

describe('families', () => {
  test('OPT', () => {
    expect(read(OPT)).toEqual({
      name: 'm',
      family: 'opt',
      dtype: 'float32',
      numLayers: 4,
      hiddenSize: 64,
      ffnSize: 256,
      numHeads: 4,
      numKvHeads: 4,
      headDim: 16,
      vocabSize: 512,
      maxPositions: 128,
      embeddingSize: 64,
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
      bosTokenId: 2,
      eosTokenIds: [2],
    });
  });

  test('OPT-350m: norms after the residual, none at the end, narrower embedding', () => {
    expect(read('opt-tiny-350m-style-fp32')).toMatchObject({
      normPlacement: 'post',
      finalNorm: false,
      embeddingSize: 32,
      hiddenSize: 64,
    });
  });

  test('OPT variants', () => {
    expect(read(OPT, { _remove_final_layer_norm: true }).finalNorm).toBe(false);
    expect(read(OPT, { enable_bias: false })).toMatchObject({ qkvBias: false, outputBias: false, mlpBias: false });
    expect(read(OPT, { activation_function: 'gelu' }).activation).toBe('gelu');
    expect(read(OPT, { word_embed_proj_dim: null }).embeddingSize).toBe(64);
  });

  test('Llama', () => {
    expect(read(LLAMA)).toEqual({
      name: 'm',
      family: 'llama',
      dtype: 'float32',
      numLayers: 4,
      hiddenSize: 64,
      ffnSize: 176,
      numHeads: 4,
      numKvHeads: 2,
      headDim: 16,
      vocabSize: 512,
      maxPositions: 128,
      embeddingSize: 64,
      tiedEmbeddings: false,
      norm: 'rmsNorm',
      normEpsilon: 1e-5,
      normPlacement: 'pre',
      finalNorm: true,
      positions: { kind: 'rope', theta: 10000 },
      qkvBias: false,
      outputBias: false,
      mlpBias: false,
      qkNorm: false,
      gatedMlp: true,
      activation: 'silu',
      bosTokenId: 1,
      eosTokenIds: [2],
    });
  });

  test('Llama variants', () => {
    expect(read(LLAMA, { num_key_value_heads: null }).numKvHeads).toBe(4);
    expect(read(LLAMA, { head_dim: 32 }).headDim).toBe(32);
    expect(read(LLAMA, { attention_bias: true })).toMatchObject({ qkvBias: true, outputBias: true, mlpBias: false });
    expect(read(LLAMA, { mlp_bias: true })).toMatchObject({ qkvBias: false, mlpBias: true });
    expect(read(LLAMA, { tie_word_embeddings: true }).tiedEmbeddings).toBe(true);
    expect(read(LLAMA, { hidden_act: 'gelu_pytorch_tanh' }).activation).toBe('geluTanh');
  });

  test('Mistral: sliding window and its own head size', () => {
    expect(read(MISTRAL)).toMatchObject({ slidingWindow: 16, headDim: 32, qkvBias: false });
    expect(read(MISTRAL, { sliding_window: null })).not.toHaveProperty('slidingWindow');
  });

  test('Qwen2 and Qwen3', () => {
    expect(read(QWEN2)).toMatchObject({ qkvBias: true, outputBias: false, qkNorm: false, tiedEmbeddings: true });
    expect(read(QWEN3)).toMatchObject({ qkvBias: false, outputBias: false, qkNorm: true, headDim: 32 });
    expect(read(QWEN2, { sliding_window: 8 })).not.toHaveProperty('slidingWindow');
    const window = { use_sliding_window: true, sliding_window: 8 };
    expect(read(QWEN2, { ...window, max_window_layers: 0 }).slidingWindow).toBe(8);
    expect(read(QWEN2, { ...window, max_window_layers: 4 })).not.toHaveProperty('slidingWindow');
  });

  test('mixtures', () => {
    expect(read(MIXTRAL).experts).toEqual({ count: 4, activePerToken: 2, normalizeTopK: true });
    const moe = {
      ...fixture(QWEN3),
      model_type: 'qwen3_moe',
      moe_intermediate_size: 48,
      num_experts: 8,
      num_experts_per_tok: 3,
      norm_topk_prob: true,
      decoder_sparse_step: 1,
      mlp_only_layers: [],
    };
    expect(readModelConfig(moe, 'm')).toMatchObject({
      family: 'qwen3_moe',
      ffnSize: 48,
      qkNorm: true,
      experts: { count: 8, activePerToken: 3, normalizeTopK: true },
    });
    expect(() => readModelConfig({ ...moe, mlp_only_layers: [0] }, 'm')).toThrow(/mlp_only_layers/);
    expect(() => readModelConfig({ ...moe, decoder_sparse_step: 2 }, 'm')).toThrow(/decoder_sparse_step/);
  });
});

describe('rotary scaling', () => {
  const llama3 = {
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 32,
  };
  const expected = { kind: 'llama3', factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositions: 32 };

  test.each<[string, Json, unknown]>([
    ['llama3', { rope_scaling: { rope_type: 'llama3', ...llama3 } }, { kind: 'rope', theta: 10000, scaling: expected }],
    [
      'llama3 under the old name of its type',
      { rope_scaling: { type: 'llama3', ...llama3 } },
      { kind: 'rope', theta: 10000, scaling: expected },
    ],
    [
      'linear',
      { rope_scaling: { type: 'linear', factor: 2 } },
      { kind: 'rope', theta: 10000, scaling: { kind: 'linear', factor: 2 } },
    ],
    ['default', { rope_scaling: { rope_type: 'default' } }, { kind: 'rope', theta: 10000 }],
    [
      'rope_parameters alone',
      { rope_theta: undefined, rope_parameters: { rope_type: 'default', rope_theta: 5e5 } },
      { kind: 'rope', theta: 5e5 },
    ],
    [
      'rope_parameters with llama3',
      { rope_theta: undefined, rope_parameters: { rope_type: 'llama3', rope_theta: 5e5, ...llama3 } },
      { kind: 'rope', theta: 5e5, scaling: expected },
    ],
    ['no theta: the default of Llama', { rope_theta: undefined }, { kind: 'rope', theta: 10000 }],
  ])('%s', (_, changes, positions) => {
    expect(read(LLAMA, changes).positions).toEqual(positions);
  });

  test('the default theta of Mixtral is its own', () => {
    expect(read(MIXTRAL, { rope_theta: undefined }).positions).toEqual({ kind: 'rope', theta: 1e6 });
  });
});

describe('token ids and number format', () => {
  test('end tokens of both files count once', () => {
    expect(read(LLAMA, { eos_token_id: [2, 5] }).eosTokenIds).toEqual([2, 5]);
    expect(read(LLAMA, {}, { eos_token_id: [2, 7, 9] }).eosTokenIds).toEqual([2, 7, 9]);
    expect(read(LLAMA, { eos_token_id: null }).eosTokenIds).toEqual([]);
    expect(read(LLAMA, { bos_token_id: null })).not.toHaveProperty('bosTokenId');
  });

  test.each([
    [{ torch_dtype: 'bfloat16' }, 'bfloat16'],
    [{ torch_dtype: undefined, dtype: 'float16' }, 'float16'],
    [{ torch_dtype: 'float32', dtype: 'bfloat16' }, 'bfloat16'],
    [{ torch_dtype: undefined }, 'float32'],
  ])('%j', (changes, dtype) => {
    expect(read(LLAMA, changes).dtype).toBe(dtype);
  });
});

describe('refusals name the field', () => {
  test.each<[string, Json, string]>([
    [LLAMA, { hidden_size: undefined }, 'hidden_size'],
    [LLAMA, { hidden_size: '64' }, 'hidden_size'],
    [LLAMA, { hidden_size: -64 }, 'hidden_size'],
    [LLAMA, { num_hidden_layers: 2.5 }, 'num_hidden_layers'],
    [LLAMA, { num_hidden_layers: 0 }, 'num_hidden_layers'],
    [LLAMA, { vocab_size: null }, 'vocab_size'],
    [LLAMA, { intermediate_size: undefined }, 'intermediate_size'],
    [LLAMA, { max_position_embeddings: undefined }, 'max_position_embeddings'],
    [LLAMA, { rms_norm_eps: 0 }, 'rms_norm_eps'],
    [LLAMA, { num_key_value_heads: 3 }, 'num_key_value_heads'],
    [LLAMA, { num_attention_heads: 7, num_key_value_heads: 7 }, 'num_attention_heads'],
    [LLAMA, { head_dim: 15 }, 'head_dim'],
    [LLAMA, { tie_word_embeddings: 'yes' }, 'tie_word_embeddings'],
    [LLAMA, { eos_token_id: 'two' }, 'eos_token_id'],
    [LLAMA, { eos_token_id: 512 }, 'eos_token_id'],
    [LLAMA, { rope_scaling: { rope_type: 'linear' } }, 'factor of rope_scaling'],
    [LLAMA, { rope_scaling: 'linear' }, 'rope_scaling'],
    [
      LLAMA,
      {
        rope_scaling: {
          rope_type: 'llama3',
          factor: 8,
          low_freq_factor: 4,
          high_freq_factor: 4,
          original_max_position_embeddings: 32,
        },
      },
      'high_freq_factor',
    ],
    [MIXTRAL, { num_experts_per_tok: 5 }, 'num_experts_per_tok'],
    [MIXTRAL, { num_local_experts: undefined }, 'num_local_experts'],
    [OPT, { ffn_dim: undefined }, 'ffn_dim'],
    [OPT, { num_attention_heads: 5 }, 'num_attention_heads'],
  ])('bad-input: %s %j', (name, changes, field) => {
    const error = failure(name, changes);
    expect(error.code).toBe('bad-input');
    expect(error.message).toContain(field);
    expect(error.message).not.toContain('\n');
  });

  test.each<[string, Json, string]>([
    [LLAMA, { model_type: 'gpt_bigcode' }, 'model_type'],
    [LLAMA, { model_type: 'toString' }, 'model_type'],
    [LLAMA, { rope_scaling: { rope_type: 'yarn', factor: 4 } }, 'rope_type'],
    [LLAMA, { rope_scaling: { type: 'dynamic', factor: 4 } }, 'type'],
    [LLAMA, { partial_rotary_factor: 0.5 }, 'partial_rotary_factor'],
    [LLAMA, { hidden_act: 'quick_gelu' }, 'hidden_act'],
    [LLAMA, { quantization_config: { quant_method: 'awq' } }, 'quantization_config'],
    [LLAMA, { attention_sinks: true }, 'attention_sinks'],
    [LLAMA, { final_logit_softcapping: 30 }, 'final_logit_softcapping'],
    [LLAMA, { torch_dtype: 'float64' }, 'torch_dtype'],
    [LLAMA, { layer_types: ['full_attention', 'sliding_attention'] }, 'layer_types'],
    [MISTRAL, { layer_types: ['full_attention'] }, 'layer_types'],
    [QWEN2, { use_sliding_window: true, sliding_window: 8, max_window_layers: 2 }, 'max_window_layers'],
    [OPT, { layer_norm_elementwise_affine: false }, 'layer_norm_elementwise_affine'],
    [OPT, { activation_function: 'silu' }, 'activation_function'],
  ])('unsupported: %s %j', (name, changes, field) => {
    const error = failure(name, changes);
    expect(error.code).toBe('unsupported');
    expect(error.message).toContain(field);
    expect(error.message).not.toContain('\n');
  });

  test('not an object, or without model_type', () => {
    for (const json of [null, 7, 'text', [], {}]) {
      expect(() => readModelConfig(json, 'm')).toThrow(FlexplanError);
    }
  });

  test('an unknown family lists those that are read', () => {
    for (const family of MODEL_FAMILIES) expect(failure(LLAMA, { model_type: 'mamba' }).message).toContain(family);
  });
});
