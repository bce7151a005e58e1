import { cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeEach, describe, expect, test } from 'vitest';
import { loadModelConfig, openModelFolder } from '../../src/engine/model-folder.js';
import { layerTensors } from '../../src/models/tensors.js';
import { temporaryFolder } from './temporary-folder.js';
import { writeTensors } from './write-safetensors.js';

const FIXTURES = fileURLToPath(new URL('../fixtures/', import.meta.url));
const MODELS = readdirSync(FIXTURES).filter((name) => name.includes('-tiny-'));

type Tensors = Record<string, { dtype: string; shape: number[] }>;

const root = temporaryFolder();
const folder = join(root, 'model');

/** The header of a fixture's weights, to be written again with changes. */
function tensorsOf(fixture: string): Tensors {
  const bytes = readFileSync(join(FIXTURES, fixture, 'model.safetensors'));
  const header = JSON.parse(bytes.toString('utf8', 8, 8 + Number(bytes.readBigUInt64LE()))) as Tensors;
  return Object.fromEntries(Object.entries(header).filter(([name]) => name !== '__metadata__'));
}

function copy(fixture: string): Tensors {
  cpSync(join(FIXTURES, fixture), folder, { recursive: true });
  return fixture.includes('sharded') ? {} : tensorsOf(fixture);
}

function setConfig(changes: object): void {
  const path = join(folder, 'config.json');
  writeFileSync(path, JSON.stringify({ ...(JSON.parse(readFileSync(path, 'utf8')) as object), ...changes }));
}

beforeEach(() => {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder);
});

describe('fixtures', () => {
  test('there are models to test', () => expect(MODELS.length).toBeGreaterThanOrEqual(11));

  test.each(MODELS)('%s: every tensor of the table is found, every tensor of the file is used', async (name) => {
    const { model, tensors } = await openModelFolder(join(FIXTURES, name));
    const table = ['embed', ...Array<string>(model.numLayers).fill('decoder'), 'head'] as const;
    const roles = table.flatMap((kind, layer) =>
      layerTensors(model, kind as 'embed').map(({ role }) => `${layer} ${role}`),
    );
    expect(tensors.map(({ layer, role }) => `${layer} ${role}`)).toEqual(roles);
    const places = new Set(tensors.map(({ file }) => `${file.path} ${file.byteOffset}`));
    expect(places.size).toBe(roles.length);
    const stored = JSON.parse(readFileSync(join(FIXTURES, name, 'config.json'), 'utf8')) as { torch_dtype: string };
    expect(model.dtype).toBe(stored.torch_dtype);
  });

  test('config.json names the same model as its folder', async () => {
    const byFolder = await openModelFolder(join(FIXTURES, 'llama-tiny-fp32'));
    expect(await openModelFolder(join(FIXTURES, 'llama-tiny-fp32', 'config.json'))).toEqual(byFolder);
    expect(byFolder.model.name).toBe('llama-tiny-fp32');
  });
});

describe('names', () => {
  test('experts: w1 is the gate, w3 up, w2 down', async () => {
    const names = tensorsOf('mixtral-tiny-fp32');
    const { tensors } = await openModelFolder(join(FIXTURES, 'mixtral-tiny-fp32'));
    const bytes = readFileSync(join(FIXTURES, 'mixtral-tiny-fp32', 'model.safetensors'));
    const dataOffset = 8 + Number(bytes.readBigUInt64LE());
    const offsetOf = (name: string) =>
      dataOffset + (names[name] as unknown as { data_offsets: [number, number] }).data_offsets[0];
    const located = (role: string) => tensors.find((t) => t.layer === 3 && t.role === role)!.file.byteOffset;
    expect(located('experts.1.gate')).toBe(offsetOf('model.layers.2.block_sparse_moe.experts.1.w1.weight'));
    expect(located('experts.1.up')).toBe(offsetOf('model.layers.2.block_sparse_moe.experts.1.w3.weight'));
    expect(located('experts.1.down')).toBe(offsetOf('model.layers.2.block_sparse_moe.experts.1.w2.weight'));
    expect(located('router')).toBe(offsetOf('model.layers.2.block_sparse_moe.gate.weight'));
  });

  test('the mixtures of Qwen3 name their experts otherwise', async () => {
    const tensors = copy('qwen3-tiny-fp32');
    setConfig({ model_type: 'qwen3_moe', num_experts: 3, num_experts_per_tok: 2, moe_intermediate_size: 48 });
    const experts = [0, 1, 2].flatMap((e) =>
      Object.entries({ gate_proj: [48, 64], up_proj: [48, 64], down_proj: [64, 48] }).map(
        ([name, shape]) => [`experts.${e}.${name}`, shape] as const,
      ),
    );
    const mixture: Tensors = {};
    for (let layer = 0; layer < 4; layer++) {
      for (const [name, shape] of [['gate', [3, 64]] as [string, number[]], ...experts]) {
        mixture[`model.layers.${layer}.mlp.${name}.weight`] = { dtype: 'F32', shape };
      }
    }
    const attention = Object.entries(tensors).filter(([name]) => !name.includes('.mlp.'));
    writeTensors(join(folder, 'model.safetensors'), { ...Object.fromEntries(attention), ...mixture });
    const { tensors: located } = await openModelFolder(folder);
    expect(located).toHaveLength(attention.length + Object.keys(mixture).length);
    expect(located.find(({ role }) => role === 'experts.2.down')!.file.shape).toEqual([64, 48]);
  });

  test.each([
    ['opt-tiny-fp32', /^model\.decoder\./, 'decoder.'],
    ['opt-tiny-fp32', /^model\.decoder\./, ''],
    ['llama-tiny-fp32', /^model\./, ''],
  ])('%s with another prefix: "%s" -> "%s"', async (fixture, prefix, replacement) => {
    const tensors = copy(fixture);
    const renamed = Object.entries(tensors).map(([name, t]) => [name.replace(prefix, replacement), t] as const);
    writeTensors(join(folder, 'model.safetensors'), Object.fromEntries(renamed));
    const { tensors: located } = await openModelFolder(folder);
    expect(located.length).toBe((await openModelFolder(join(FIXTURES, fixture))).tensors.length);
  });

  test('a tied head may be stored under either name, or both', async () => {
    const tensors = copy('opt-tiny-fp32');
    const embedding = 'model.decoder.embed_tokens.weight';
    const { [embedding]: shape, ...others } = tensors;
    for (const both of [{ [embedding]: shape!, 'lm_head.weight': shape! }, { 'lm_head.weight': shape! }]) {
      writeTensors(join(folder, 'model.safetensors'), { ...both, ...others });
      const { tensors: located } = await openModelFolder(folder);
      expect(located.filter(({ role }) => role === 'head' || role === 'tokenEmbedding')).toHaveLength(1);
      expect(located.find(({ role }) => role === 'head')!.file.byteOffset).toBe(
        Math.min(...located.map(({ file }) => file.byteOffset)),
      );
    }
  });
});

describe('weights that do not belong to config.json', () => {
  const NAMES: [string, string, RegExp][] = [
    ['llama-tiny-fp32', 'lm_head.weight', /lm_head\.weight/],
    ['llama-tiny-fp32', 'model.embed_tokens.weight', /embed_tokens/],
    ['llama-tiny-fp32', 'model.layers.3.mlp.up_proj.weight', /layers\.3\.mlp\.up_proj/],
    ['qwen2-tiny-fp32', 'model.layers.0.self_attn.k_proj.bias', /k_proj\.bias/],
    ['mixtral-tiny-fp32', 'model.layers.1.block_sparse_moe.experts.3.w2.weight', /experts\.3\.w2/],
    ['opt-tiny-350m-style-fp32', 'model.decoder.project_in.weight', /project_in/],
  ];

  test.each(NAMES)('%s without %s', async (fixture, name, message) => {
    const others = Object.fromEntries(Object.entries(copy(fixture)).filter(([other]) => other !== name));
    writeTensors(join(folder, 'model.safetensors'), others);
    await expect(openModelFolder(folder)).rejects.toMatchObject({ code: 'bad-input' });
    await expect(openModelFolder(folder)).rejects.toThrow(message);
  });

  test.each<[string, object, RegExp]>([
    ['llama-tiny-fp32', { intermediate_size: 192 }, /gate_proj.*\[192, 64\], got \[176, 64\]/],
    ['llama-tiny-fp32', { num_key_value_heads: 4 }, /k_proj.*\[64, 64\], got \[32, 64\]/],
    ['llama-tiny-fp32', { vocab_size: 500 }, /embed_tokens.*\[500, 64\], got \[512, 64\]/],
    ['llama-tiny-fp32', { num_hidden_layers: 5 }, /layers\.4\./],
    ['opt-tiny-fp32', { max_position_embeddings: 256 }, /embed_positions.*\[258, 64\], got \[130, 64\]/],
  ])('%s with %j', async (fixture, changes, message) => {
    copy(fixture);
    setConfig(changes);
    await expect(openModelFolder(folder)).rejects.toThrow(message);
  });

  test('tensors of a layer that would be left out', async () => {
    copy('qwen2-tiny-fp32');
    setConfig({ model_type: 'llama' });
    await expect(openModelFolder(folder)).rejects.toMatchObject({ code: 'unsupported' });
    await expect(openModelFolder(folder)).rejects.toThrow(/_proj\.bias/);
    copy('llama-tiny-fp32');
    setConfig({ num_hidden_layers: 3 });
    await expect(openModelFolder(folder)).rejects.toThrow(/layers\.3\./);
  });

  test('tensors that are computed, or outside the layers, may be there', async () => {
    const tensors = copy('llama-tiny-fp32');
    const buffer = { dtype: 'F32', shape: [8] };
    writeTensors(join(folder, 'model.safetensors'), {
      ...tensors,
      'model.layers.0.self_attn.rotary_emb.inv_freq': buffer,
      'classifier.weight': buffer,
    });
    expect((await openModelFolder(folder)).tensors.length).toBe(Object.keys(tensors).length);
  });
});

describe('number formats', () => {
  const inFormat = (tensors: Tensors, dtype: (name: string) => string) =>
    Object.fromEntries(Object.entries(tensors).map(([name, { shape }]) => [name, { dtype: dtype(name), shape }]));

  test('the files decide, not config.json', async () => {
    writeTensors(
      join(folder, 'model.safetensors'),
      inFormat(copy('llama-tiny-fp32'), () => 'BF16'),
    );
    expect((await openModelFolder(folder)).model.dtype).toBe('bfloat16');
    expect((await loadModelConfig(folder)).dtype).toBe('bfloat16');
  });

  test('vectors may differ', async () => {
    const tensors = copy('llama-tiny-fp32');
    writeTensors(
      join(folder, 'model.safetensors'),
      inFormat(tensors, (n) => (n.includes('norm') ? 'F32' : 'F16')),
    );
    expect((await openModelFolder(folder)).model.dtype).toBe('float16');
  });

  test('matrices may not', async () => {
    const tensors = copy('llama-tiny-fp32');
    writeTensors(
      join(folder, 'model.safetensors'),
      inFormat(tensors, (n) => (n.includes('lm_head') ? 'F32' : 'F16')),
    );
    await expect(openModelFolder(folder)).rejects.toMatchObject({ code: 'unsupported' });
    await expect(openModelFolder(folder)).rejects.toThrow(/one number format.*F16.*F32 for head/);
  });

  test('formats that are not floating point are refused', async () => {
    writeTensors(
      join(folder, 'model.safetensors'),
      inFormat(copy('llama-tiny-fp32'), () => 'F64'),
    );
    await expect(openModelFolder(folder)).rejects.toThrow(/F32, F16 or BF16, got F64/);
  });
});

describe('missing and foreign files', () => {
  test('nothing there, no config.json, no weights', async () => {
    await expect(openModelFolder(join(root, 'none'))).rejects.toThrow(/got nothing there/);
    await expect(openModelFolder(folder)).rejects.toThrow(/config\.json/);
    copy('llama-tiny-fp32');
    rmSync(join(folder, 'model.safetensors'));
    await expect(openModelFolder(folder)).rejects.toThrow(/model\.safetensors or model\.safetensors\.index\.json/);
    expect(await loadModelConfig(folder)).toMatchObject({ numLayers: 4, dtype: 'float32' });
  });

  test('config.json that is no JSON', async () => {
    writeFileSync(join(folder, 'config.json'), '{"model_type":');
    await expect(openModelFolder(folder)).rejects.toThrow(/expected JSON in .*config\.json/);
  });

  test('a shard is missing', async () => {
    copy('llama-tiny-sharded-fp16');
    renameSync(join(folder, 'model-00002-of-00003.safetensors'), join(folder, 'elsewhere'));
    await expect(openModelFolder(folder)).rejects.toThrow(/model-00002-of-00003\.safetensors/);
  });

  const INDEX = 'model.safetensors.index.json';
  const withIndex = (change: (map: Record<string, unknown>) => unknown) => {
    copy('llama-tiny-sharded-fp16');
    const index = JSON.parse(readFileSync(join(folder, INDEX), 'utf8')) as { weight_map: Record<string, unknown> };
    writeFileSync(join(folder, INDEX), JSON.stringify({ weight_map: change(index.weight_map) }));
  };

  test.each(['../other.safetensors', '/etc/passwd', 'a/b.safetensors', 'a\\b.safetensors', '..', 'model.bin', 7])(
    'the index may not name %j',
    async (file) => {
      withIndex((map) => ({ ...map, 'lm_head.weight': file }));
      await expect(openModelFolder(folder)).rejects.toMatchObject({ code: 'bad-input' });
      await expect(openModelFolder(folder)).rejects.toThrow(/of its own folder for lm_head\.weight/);
    },
  );

  test('the index maps a tensor to a shard that lacks it', async () => {
    withIndex((map) => ({ ...map, 'lm_head.weight': 'model-00001-of-00003.safetensors' }));
    await expect(openModelFolder(folder)).rejects.toThrow(/lm_head\.weight in .*model-00001/);
  });

  test('the index has no map', async () => {
    withIndex(() => []);
    await expect(openModelFolder(folder)).rejects.toThrow(/weight_map/);
  });
});
