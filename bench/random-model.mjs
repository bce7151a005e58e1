/** A Llama of any shape with random fp16 weights, as a Hugging Face folder: speed depends on shapes, not on what was learned. */
import { closeSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const FP16_BYTES = 2;
const FP16_ONE = 0x3c00;
/** Values of 2^-7 to 2^-6, of either sign: sums neither vanish nor overflow. */
const FP16_SMALLEST = 0x2000;
const FP16_MANTISSAS = 0x400;
const FP16_SIGN = 0x8000;
const RANDOM_VALUES = 1 << 20;

/** shape: numLayers hiddenSize ffnSize numHeads numKvHeads vocabSize. Creates the folder and returns it. */
export function writeRandomLlama(folder, shape) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), JSON.stringify(configOf(shape), null, 1));
  const tensors = tensorsOf(shape);
  const file = openSync(join(folder, 'model.safetensors'), 'w');
  try {
    writeSync(file, headerOf(tensors));
    const random = randomValues();
    for (const { shape: dims } of tensors) writeTensor(file, dims, random);
  } finally {
    closeSync(file);
  }
  return folder;
}

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
    torch_dtype: 'float16',
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
function headerOf(tensors) {
  let end = 0;
  const entries = tensors.map(({ name, shape }) => {
    const start = end;
    end += FP16_BYTES * elements(shape);
    return [name, { dtype: 'F16', shape, data_offsets: [start, end] }];
  });
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json]);
}

/** The same ones every time. */
function randomValues() {
  let state = 1;
  return Uint16Array.from({ length: RANDOM_VALUES }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return FP16_SMALLEST + ((state >>> 16) % FP16_MANTISSAS) + (state >>> 31) * FP16_SIGN;
  });
}

/** Matrices of random values, vectors of ones. */
function writeTensor(file, dims, random) {
  let left = elements(dims);
  const values = dims.length === 1 ? new Uint16Array(left).fill(FP16_ONE) : random;
  for (; left > 0; left -= values.length) writeSync(file, values.subarray(0, Math.min(left, values.length)));
}
