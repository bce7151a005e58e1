/**
 * An OPT model of true shape with weights that were never learned, as a Hugging Face folder.
 *
 *   node native/test/gpu/opt-model.mjs <name> <folder> [random layers]     name: a key of SHAPES
 *
 * The first layers (default: all) get random fp16 values. The others stay holes in the file, which take no disk and
 * read as zeros: a link moves them just as slowly, though matrix units are some percent faster on zeros.
 */
import { closeSync, ftruncateSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

const SHAPES = {
  tiny: { layers: 4, hidden: 256, heads: 4, vocab: 1000 },
  '1.3b': { layers: 24, hidden: 2048, heads: 32, vocab: 50272 },
  '6.7b': { layers: 32, hidden: 4096, heads: 32, vocab: 50272 },
  '13b': { layers: 40, hidden: 5120, heads: 40, vocab: 50272 },
  '30b': { layers: 48, hidden: 7168, heads: 56, vocab: 50272 },
  '66b': { layers: 64, hidden: 9216, heads: 72, vocab: 50272 },
  '175b': { layers: 96, hidden: 12288, heads: 96, vocab: 50272 },
};
const POSITIONS = 2050;
const FP16_BYTES = 2;
const FP16_ONE = 0x3c00;
const RANDOM_VALUES = 1 << 22;

const [name, folder, randomLayers = '1000'] = process.argv.slice(2);
const shape = SHAPES[name];
if (!shape || !folder) {
  console.error(`expected a name (${Object.keys(SHAPES).join(', ')}) and a folder`);
  process.exit(2);
}

function tensors({ layers, hidden, vocab }) {
  const linear = (prefix, rows, cols) => [
    [`${prefix}.weight`, [rows, cols]],
    [`${prefix}.bias`, [rows]],
  ];
  const norm = (prefix) => [
    [`${prefix}.weight`, [hidden], FP16_ONE],
    [`${prefix}.bias`, [hidden]],
  ];
  const layer = (n) => {
    const prefix = `model.decoder.layers.${n}`;
    return [
      ...['q_proj', 'k_proj', 'v_proj', 'out_proj'].flatMap((p) => linear(`${prefix}.self_attn.${p}`, hidden, hidden)),
      ...norm(`${prefix}.self_attn_layer_norm`),
      ...linear(`${prefix}.fc1`, 4 * hidden, hidden),
      ...linear(`${prefix}.fc2`, hidden, 4 * hidden),
      ...norm(`${prefix}.final_layer_norm`),
    ].map((tensor) => ({ tensor, isHole: n >= Number(randomLayers) }));
  };
  return [
    { tensor: ['model.decoder.embed_tokens.weight', [vocab, hidden]] },
    { tensor: ['model.decoder.embed_positions.weight', [POSITIONS, hidden]] },
    ...norm('model.decoder.final_layer_norm').map((tensor) => ({ tensor })),
    ...Array.from({ length: layers }, (_, n) => layer(n)).flat(),
  ];
}

/** Around +-2^-7, so that sums neither vanish nor overflow; the same ones every time. */
function randomValues() {
  let state = 1;
  return Uint16Array.from({ length: RANDOM_VALUES }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return 0x2000 + ((state >>> 16) % 0x400) + (state >>> 31) * 0x8000;
  });
}

const elements = (dims) => dims.reduce((product, size) => product * size, 1);

const all = tensors(shape);
const header = {};
let dataBytes = 0;
for (const { tensor } of all) {
  const [tensorName, dims] = tensor;
  const begin = dataBytes;
  dataBytes += FP16_BYTES * elements(dims);
  header[tensorName] = { dtype: 'F16', shape: dims, data_offsets: [begin, dataBytes] };
}
const json = Buffer.from(JSON.stringify(header));
const length = Buffer.alloc(8);
length.writeBigUInt64LE(BigInt(json.length));

mkdirSync(folder, { recursive: true });
const config = {
  model_type: 'opt',
  architectures: ['OPTForCausalLM'],
  vocab_size: shape.vocab,
  hidden_size: shape.hidden,
  word_embed_proj_dim: shape.hidden,
  num_hidden_layers: shape.layers,
  num_attention_heads: shape.heads,
  ffn_dim: 4 * shape.hidden,
  max_position_embeddings: POSITIONS - 2,
  do_layer_norm_before: true,
  activation_function: 'relu',
  tie_word_embeddings: true,
  torch_dtype: 'float16',
};
writeFileSync(join(folder, 'config.json'), JSON.stringify(config, null, 1));
const file = openSync(join(folder, 'model.safetensors'), 'w');
const dataStart = 8 + json.length;
writeSync(file, Buffer.concat([length, json]));
ftruncateSync(file, dataStart + dataBytes);
const random = randomValues();
for (const { tensor, isHole } of all) {
  const [tensorName, dims, value] = tensor;
  if (isHole && value === undefined) continue;
  // Biases stay zero.
  if (dims.length === 1 && value === undefined) continue;
  const values = value === undefined ? random : new Uint16Array(elements(dims)).fill(value);
  const total = elements(dims);
  for (let done = 0; done < total; done += values.length) {
    const some = values.subarray(0, Math.min(total - done, values.length));
    writeSync(file, some, 0, some.byteLength, dataStart + header[tensorName].data_offsets[0] + FP16_BYTES * done);
  }
}
closeSync(file);
console.log(
  `${folder}: OPT-${name}, ${(dataBytes / 1e9).toFixed(1)} GB, ` +
    `${Math.min(shape.layers, randomLayers)} of ${shape.layers} layers random`,
);
