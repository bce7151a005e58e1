/**
 * Models at random: config.json with any mix of what the families allow, and weights to match, in Hugging Face form.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { readModelConfig } from '../../src/models/config-reader.js';
import type { ModelConfig } from '../../src/models/model-config.js';
import { layerTensors } from '../../src/models/tensors.js';
import { layerKind } from '../../src/engine/tensor-names.js';
import type { Weights } from './slow-transformer.js';
import { safetensorsBytes, type HeaderEntry } from './write-safetensors.js';

const common = {
  vocab_size: fc.integer({ min: 20, max: 70 }),
  num_hidden_layers: fc.integer({ min: 1, max: 3 }),
  tie_word_embeddings: fc.boolean(),
  max_position_embeddings: fc.constant(32),
};

const opt = fc
  .record({
    ...common,
    model_type: fc.constant('opt'),
    num_attention_heads: fc.integer({ min: 1, max: 4 }),
    headDim: fc.constantFrom(4, 6, 16),
    ffn_dim: fc.integer({ min: 5, max: 70 }),
    narrow: fc.boolean(),
    do_layer_norm_before: fc.boolean(),
    _remove_final_layer_norm: fc.boolean(),
    enable_bias: fc.boolean(),
    activation_function: fc.constantFrom('relu', 'gelu'),
  })
  .map(({ headDim, narrow, ...config }) => {
    const hidden_size = headDim * config.num_attention_heads;
    return { ...config, hidden_size, word_embed_proj_dim: narrow ? hidden_size / 2 : hidden_size };
  });

const ropeScaling = fc.constantFrom(
  null,
  { rope_type: 'linear', factor: 2.5 },
  {
    rope_type: 'llama3',
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 64,
  },
);

const rmsDecoder = (model_type: string, extra: Record<string, fc.Arbitrary<unknown>>) =>
  fc
    .record({
      ...common,
      model_type: fc.constant(model_type),
      hidden_size: fc.integer({ min: 3, max: 70 }),
      intermediate_size: fc.integer({ min: 3, max: 90 }),
      num_key_value_heads: fc.integer({ min: 1, max: 3 }),
      queriesPerHead: fc.integer({ min: 1, max: 3 }),
      head_dim: fc.constantFrom(2, 8, 10, 16),
      hidden_act: fc.constantFrom('silu', 'gelu', 'gelu_pytorch_tanh', 'relu'),
      rms_norm_eps: fc.constantFrom(1e-5, 1e-6),
      rope_theta: fc.constantFrom(100, 10000, 500000),
      rope_scaling: ropeScaling,
      ...extra,
    })
    .map(({ queriesPerHead, ...config }) => ({
      ...config,
      num_attention_heads: config.num_key_value_heads * queriesPerHead,
    }));

const window = fc.option(fc.integer({ min: 1, max: 9 }));
const experts = fc.integer({ min: 2, max: 5 });
const active = fc.integer({ min: 1, max: 2 });

export interface RandomModel {
  readonly config: object;
  readonly seed: number;
}

const CONFIGS: Readonly<Record<string, fc.Arbitrary<object>>> = {
  opt,
  llama: rmsDecoder('llama', { attention_bias: fc.boolean(), mlp_bias: fc.boolean() }),
  mistral: rmsDecoder('mistral', { sliding_window: window }),
  qwen2: rmsDecoder('qwen2', {}),
  qwen3: rmsDecoder('qwen3', { attention_bias: fc.boolean() }),
  qwen3_moe: rmsDecoder('qwen3_moe', {
    moe_intermediate_size: fc.integer({ min: 3, max: 40 }),
    num_experts: experts,
    num_experts_per_tok: active,
    norm_topk_prob: fc.boolean(),
  }),
  mixtral: rmsDecoder('mixtral', { sliding_window: window, num_local_experts: experts, num_experts_per_tok: active }),
};

export function randomModel(family: string): fc.Arbitrary<RandomModel> {
  return fc.record({ config: CONFIGS[family]!, seed: fc.integer({ min: 1, max: 2 ** 31 }) });
}

const LLAMA_NAMES: Record<string, string> = {
  q: 'self_attn.q_proj',
  k: 'self_attn.k_proj',
  v: 'self_attn.v_proj',
  o: 'self_attn.o_proj',
  qNorm: 'self_attn.q_norm',
  kNorm: 'self_attn.k_norm',
  attentionNorm: 'input_layernorm',
  mlpNorm: 'post_attention_layernorm',
  gate: 'mlp.gate_proj',
  up: 'mlp.up_proj',
  down: 'mlp.down_proj',
  tokenEmbedding: 'embed_tokens',
  finalNorm: 'norm',
};
const OPT_NAMES: Record<string, string> = {
  q: 'self_attn.q_proj',
  k: 'self_attn.k_proj',
  v: 'self_attn.v_proj',
  o: 'self_attn.out_proj',
  attentionNorm: 'self_attn_layer_norm',
  mlpNorm: 'final_layer_norm',
  up: 'fc1',
  down: 'fc2',
  tokenEmbedding: 'embed_tokens',
  positionEmbedding: 'embed_positions',
  finalNorm: 'final_layer_norm',
  projectIn: 'project_in',
  projectOut: 'project_out',
};
const MIXTRAL_MATRICES: Record<string, string> = { gate: 'w1', up: 'w3', down: 'w2' };

function fileName(model: ModelConfig, layer: number, role: string): string {
  const isOpt = model.family === 'opt';
  if (role === 'head') return model.tiedEmbeddings ? fileName(model, 0, 'tokenEmbedding') : 'lm_head.weight';
  const decoder = layer > 0 && layer <= model.numLayers ? `layers.${layer - 1}.` : '';
  const prefix = `${isOpt ? 'model.decoder.' : 'model.'}${decoder}`;
  const mixtral = model.family === 'mixtral';
  if (role === 'router') return `${prefix}${mixtral ? 'block_sparse_moe' : 'mlp'}.gate.weight`;
  const expert = /^experts\.(\d+)\.(\w+)$/.exec(role);
  if (expert) {
    const [, number, matrix] = expert as unknown as [string, string, string];
    return mixtral
      ? `${prefix}block_sparse_moe.experts.${number}.${MIXTRAL_MATRICES[matrix]}.weight`
      : `${prefix}mlp.experts.${number}.${matrix}_proj.weight`;
  }
  const base = role.replace(/Bias$/, '');
  return `${prefix}${(isOpt ? OPT_NAMES : LLAMA_NAMES)[base]}.${base === role ? 'weight' : 'bias'}`;
}

/** Repeatable noise in [-1, 1). */
function noise(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** Writes the model as a folder and hands out its weights. */
export function writeModel(
  folder: string,
  { config: json, seed }: RandomModel,
): { model: ModelConfig; weights: Weights } {
  const model = readModelConfig({ ...json, torch_dtype: 'float32' }, 'random');
  const next = noise(seed);
  const tensors = new Map<string, Float32Array>();
  const header: Record<string, HeaderEntry> = {};
  let offset = 0;
  for (let layer = 0; layer < model.numLayers + 2; layer++) {
    for (const { role, kind, rows, cols } of layerTensors(model, layerKind(model, layer))) {
      const isGain = kind === 'vector' && !role.endsWith('Bias');
      const scale = kind === 'vector' ? 0.3 : 2 / Math.sqrt(cols);
      const values = Float32Array.from({ length: rows * cols }, () => next() * scale + (isGain ? 1 : 0));
      tensors.set(`${layer} ${role}`, values);
      const shape = kind === 'vector' ? [rows] : [rows, cols];
      header[fileName(model, layer, role)] = {
        dtype: 'F32',
        shape,
        data_offsets: [offset, (offset += 4 * values.length)],
      };
    }
  }
  mkdirSync(folder, { recursive: true });
  const data = [...tensors.values()].map((values) => Buffer.from(values.buffer));
  writeFileSync(join(folder, 'model.safetensors'), Buffer.concat([safetensorsBytes(header, 0), ...data]));
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...json, torch_dtype: 'float32' }));
  return { model, weights: (layer, role) => tensors.get(`${layer} ${role}`) };
}
