/** `config.json` of Hugging Face form -> ModelConfig. Pure, so that the planner page can use it too. */
import { FlexplanError } from '../errors.js';
import { ConfigFields } from './config-fields.js';
import { readLlama, readMistral } from './llama.js';
import { readMixtral } from './mixtral.js';
import type { ModelConfig } from './model-config.js';
import { readOpt } from './opt.js';
import { readQwen2, readQwen3, readQwen3Moe } from './qwen.js';

/** What a family's reader gives; name, family and token ids are read alike for all. */
export type ModelShape = Omit<ModelConfig, 'name' | 'family' | 'bosTokenId' | 'eosTokenIds'>;

const READERS: Readonly<Record<string, (fields: ConfigFields) => ModelShape>> = {
  opt: readOpt,
  llama: readLlama,
  mistral: readMistral,
  qwen2: readQwen2,
  qwen3: readQwen3,
  qwen3_moe: readQwen3Moe,
  mixtral: readMixtral,
};

/** `model_type` of every family that can be read. */
export const MODEL_FAMILIES: readonly string[] = Object.keys(READERS);

/** Fields that would change what is computed, each with the values that change nothing. */
const NEUTRAL_VALUES: Readonly<Record<string, readonly unknown[]>> = {
  quantization_config: [],
  compression_config: [],
  is_encoder_decoder: [false],
  add_cross_attention: [false],
  attn_logit_softcapping: [],
  final_logit_softcapping: [],
  query_pre_attn_scalar: [],
  attention_sinks: [false],
  attention_multiplier: [1],
  embedding_multiplier: [1],
  residual_multiplier: [1],
  logits_scaling: [1],
  logit_scale: [1],
  embedding_scale: [1],
  clip_qkv: [],
  alibi: [false],
  parallel_attn: [false],
};

/**
 * @param json the parsed `config.json`
 * @param name what results call the model
 * @param generationConfig the parsed `generation_config.json`, whose end tokens count too
 * @throws `bad-input` naming the field that is missing or malformed; `unsupported` naming what flexplan does not compute
 */
export function readModelConfig(json: unknown, name: string, generationConfig?: unknown): ModelConfig {
  const fields = new ConfigFields(json, `config.json of ${name}`);
  const family = fields.get('model_type');
  if (typeof family !== 'string') throw fields.wrong('model_type', `one of ${MODEL_FAMILIES.join(', ')}`);
  if (!Object.hasOwn(READERS, family)) throw fields.unsupported('model_type', `one of ${MODEL_FAMILIES.join(', ')}`);
  fields.require(NEUTRAL_VALUES);
  const shape = READERS[family]!(fields);
  checkLayerTypes(fields, shape);
  checkHeadsAndExperts(fields, shape);
  return { name, family, ...shape, ...tokenIds(fields, shape, generationConfig, name) };
}

/** Newer files list the attention of each layer; flexplan computes all layers alike. */
function checkLayerTypes(fields: ConfigFields, shape: ModelShape): void {
  const types = fields.get('layer_types');
  if (types === undefined) return;
  const expected = shape.slidingWindow === undefined ? 'full_attention' : 'sliding_attention';
  if (!Array.isArray(types) || types.some((type) => type !== expected)) {
    throw fields.unsupported('layer_types', `a list of "${expected}" alone`);
  }
}

function checkHeadsAndExperts(fields: ConfigFields, shape: ModelShape): void {
  if (shape.numHeads % shape.numKvHeads !== 0) {
    throw fields.wrong('num_key_value_heads', `a divisor of num_attention_heads (${shape.numHeads})`);
  }
  const { experts } = shape;
  if (experts && experts.activePerToken > experts.count) {
    throw new FlexplanError(
      'bad-input',
      `expected num_experts_per_tok of ${fields.path} to be at most the number of experts (${experts.count}), got ${experts.activePerToken}`,
    );
  }
}

type TokenIds = Pick<ModelConfig, 'bosTokenId' | 'eosTokenIds'>;

function tokenIds(fields: ConfigFields, shape: ModelShape, generationConfig: unknown, name: string): TokenIds {
  const sources = [fields];
  if (generationConfig !== undefined) {
    sources.push(new ConfigFields(generationConfig, `generation_config.json of ${name}`));
  }
  const eosTokenIds = [...new Set(sources.flatMap((source) => source.tokenIds('eos_token_id')))];
  const tooBig = eosTokenIds.find((id) => id >= shape.vocabSize);
  if (tooBig !== undefined) {
    throw new FlexplanError(
      'bad-input',
      `expected eos_token_id of ${fields.path} to be below vocab_size (${shape.vocabSize}), got ${tooBig}`,
    );
  }
  const [bosTokenId] = fields.tokenIds('bos_token_id');
  return bosTokenId === undefined ? { eosTokenIds } : { bosTokenId, eosTokenIds };
}
