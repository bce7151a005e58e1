/**
 * A Llama of any shape with random 16-bit weights, as a Hugging Face folder: speed depends on shapes, not on what was
 * learned.
 */
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const BYTES = 2;
const SIGN = 0x8000;
/** Bits of 1, and of values of 2^-7 to 2^-6: sums neither vanish nor overflow. */
const FORMATS = {
  float16: { name: 'F16', one: 0x3c00, smallest: 0x2000, mantissas: 0x400 },
  bfloat16: { name: 'BF16', one: 0x3f80, smallest: 0x3c00, mantissas: 0x80 },
};
const RANDOM_VALUES = 1 << 20;

/**
 * shape: numLayers hiddenSize ffnSize numHeads numKvHeads vocabSize, and dtype (float16, or bfloat16). Creates the
 * folder and returns it.
 */
export function writeRandomLlama(folder, shape) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify(configOf(shape), null, 1));
  const tensors = tensorsOf(shape);
  const format = FORMATS[dtypeOf(shape)];
  const file = openSync(join(folder, 'model.safetensors'), 'w');
  try {
    writeSync(file, headerOf(tensors, format));
    const random = randomValues(format);
    for (const { shape: dims } of tensors) writeTensor(file, dims, random, format);
  } finally {
    closeSync(file);
  }
  return folder;
}

const dtypeOf = ({ dtype = 'float16' }) => dtype;

function configOf(shape) {
  return {
    model_type: 'llama',
    architectures: ['LlamaForCausalLM'],
    vocab_size: shape.vocabSize,
    hidden_size: shape.hiddenSize,
    intermediate_size: shape.ffnSize,
    num_hidden_layers: shape.numLayers,
    num_attention_heads: shape.numHeads,
    num_key_value_heads: shape.numKvHeads,
    max_position_embeddings: 4096,
    hidden_act: 'silu',
    rms_norm_eps: 1e-5,
    tie_word_embeddings: false,
    torch_dtype: dtypeOf(shape),
  };
}

function tensorsOf({ numLayers, hiddenSize, ffnSize, numHeads, numKvHeads, vocabSize }) {
  const kvSize = (hiddenSize / numHeads) * numKvHeads;
  const tensor = (name, ...shape) => ({ name, shape });
  const layer = (n) => [
    tensor(`model.layers.${n}.self_attn.q_proj.weight`, hiddenSize, hiddenSize),
    tensor(`model.layers.${n}.self_attn.k_proj.weight`, kvSize, hiddenSize),
    tensor(`model.layers.${n}.self_attn.v_proj.weight`, kvSize, hiddenSize),
    tensor(`model.layers.${n}.self_attn.o_proj.weight`, hiddenSize, hiddenSize),
    tensor(`model.layers.${n}.mlp.gate_proj.weight`, ffnSize, hiddenSize),
    tensor(`model.layers.${n}.mlp.up_proj.weight`, ffnSize, hiddenSize),
    tensor(`model.layers.${n}.mlp.down_proj.weight`, hiddenSize, ffnSize),
    tensor(`model.layers.${n}.input_layernorm.weight`, hiddenSize),
    tensor(`model.layers.${n}.post_attention_layernorm.weight`, hiddenSize),
  ];
  return [
    tensor('model.embed_tokens.weight', vocabSize, hiddenSize),
    ...Array.from({ length: numLayers }, (_, n) => layer(n)).flat(),
    tensor('model.norm.weight', hiddenSize),
    tensor('lm_head.weight', vocabSize, hiddenSize),
  ];
}

const elements = (dims) => dims.reduce((product, size) => product * size, 1);

/** Length of the JSON as 8 bytes, then the JSON: names, types, shapes and offsets. */
function headerOf(tensors, format) {
  let end = 0;
  const entries = tensors.map(({ name, shape }) => {
    const start = end;
    end += BYTES * elements(shape);
    return [name, { dtype: format.name, shape, data_offsets: [start, end] }];
  });
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json]);
}

/** The same ones every time. */
function randomValues({ smallest, mantissas }) {
  let state = 1;
  return Uint16Array.from({ length: RANDOM_VALUES }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return smallest + ((state >>> 16) % mantissas) + (state >>> 31) * SIGN;
  });
}

/** Matrices of random values, vectors of ones. */
function writeTensor(file, dims, random, { one }) {
  let left = elements(dims);
  const values = dims.length === 1 ? new Uint16Array(left).fill(one) : random;
  for (; left > 0; left -= values.length) writeSync(file, values.subarray(0, Math.min(left, values.length)));
}
