/** Model folders with something wrong in them are refused in one line, or read for what they say. */
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { openModelFolder } from '../../src/engine/model-folder.js';
import { readSafetensorsHeader } from '../../src/engine/safetensors.js';
import { loadTokenizer } from '../../src/engine/tokenizer.js';
import { readModelConfig } from '../../src/models/config-reader.js';
import { LAYER_KINDS, layerTensors } from '../../src/models/tensors.js';
import { realise } from '../../src/policy/realisation.js';
import { workloadFromNumbers } from '../../src/workload/blocks.js';
import { ROOT } from '../engine/native.js';
import { temporaryFolder } from '../engine/temporary-folder.js';
import { mutated, mutatedBytes, Outcomes } from './mutate.js';

const folder = temporaryFolder();
const fixtures = `${ROOT}test/fixtures`;
const families = readdirSync(fixtures).filter((name) => /-tiny-/.test(name));
const json = (path: string) => JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
const isSize = (value: number) => Number.isSafeInteger(value) && value > 0;

test.each(families)('config.json of %s', async (name) => {
  const outcomes = new Outcomes();
  const policy = everythingInMemory('cpu', 2);
  const workload = workloadFromNumbers(3, 2, 2);
  await fc.assert(
    fc.asyncProperty(mutated(json(`${fixtures}/${name}/config.json`)), async (config) => {
      const model = await outcomes.of(() => readModelConfig(config, 'fuzzed', config));
      if (!model) return;
      const tensors = LAYER_KINDS.flatMap((kind) => layerTensors(model, kind));
      expect(tensors.filter(({ rows, cols }) => !isSize(rows) || !isSize(cols))).toEqual([]);
      const { weights } = realise(model, policy, workload, 'cpu').bytes;
      expect(weights.cpu).toBeGreaterThan(0);
    }),
    { numRuns: 300 },
  );
  expect(outcomes.refused).toBeGreaterThan(20);
  expect(outcomes.taken).toBeGreaterThan(20);
});

test('a config.json that its weights do not match', async () => {
  const name = 'qwen2-tiny-fp32';
  const path = join(folder, name);
  cpSync(`${fixtures}/${name}`, path, { recursive: true });
  const outcomes = new Outcomes();
  await fc.assert(
    fc.asyncProperty(mutated(json(`${path}/config.json`)), async (config) => {
      writeFileSync(`${path}/config.json`, JSON.stringify(config));
      const opened = await outcomes.of(() => openModelFolder(path));
      for (const { rows, cols, kind, file } of opened?.tensors ?? [])
        expect(file.shape).toEqual(kind === 'vector' ? [rows] : [rows, cols]);
    }),
    { numRuns: 200 },
  );
  expect(outcomes.refused).toBeGreaterThan(20);
  expect(outcomes.taken).toBeGreaterThan(5);
});

/** The whole file: its tensors lie end to end behind the header. */
async function checkTiles(path: string, outcomes: Outcomes): Promise<void> {
  const tensors = await outcomes.of(() => readSafetensorsHeader(path));
  if (!tensors) return;
  const bytes = readFileSync(path);
  let end = 8 + Number(bytes.readBigUInt64LE());
  for (const { byteOffset, byteLength, shape } of tensors.values()) {
    expect(byteOffset).toBe(end);
    expect(shape.every((size) => size === 0 || isSize(size))).toBe(true);
    end += byteLength;
  }
  expect(end).toBe(bytes.length);
}

const safetensors = readFileSync(`${fixtures}/opt-tiny-fp16/model.safetensors`);
const headerBytes = Number(safetensors.readBigUInt64LE());
const header = safetensors.subarray(8, 8 + headerBytes);
const data = safetensors.subarray(8 + headerBytes);

function withHeader(text: Uint8Array): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([length, text, data]);
}

test.each<[string, fc.Arbitrary<Uint8Array>]>([
  [
    'fields of the header',
    mutated(JSON.parse(header.toString())).map((h) => withHeader(Buffer.from(JSON.stringify(h)))),
  ],
  ['text of the header', mutatedBytes(header).map(withHeader)],
  ['the length field', fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }).map((length) => lengthed(length))],
  [
    'a length field that is nearly right',
    fc.integer({ min: -9, max: 9 }).map((d) => lengthed(BigInt(headerBytes + d))),
  ],
  [
    'a file cut short or grown',
    fc
      .nat(2000)
      .map((n) => Buffer.concat([safetensors, Buffer.alloc(1000)]).subarray(0, safetensors.length + 1000 - n)),
  ],
  ['any bytes', fc.uint8Array({ maxLength: 64 })],
])('safetensors: %s', async (_, files) => {
  const path = join(folder, 'fuzzed.safetensors');
  const outcomes = new Outcomes();
  await fc.assert(
    fc.asyncProperty(files, async (bytes) => {
      writeFileSync(path, bytes);
      await checkTiles(path, outcomes);
    }),
    { numRuns: 150 },
  );
  expect(outcomes.refused).toBeGreaterThan(50);
});

function lengthed(length: bigint): Buffer {
  const bytes = Buffer.from(safetensors);
  bytes.writeBigUInt64LE(length);
  return bytes;
}

test('a key that stands twice hides nothing', async () => {
  const path = join(folder, 'twice.safetensors');
  const entry = (begin: number, end: number) => `"a":{"dtype":"U8","shape":[4],"data_offsets":[${begin},${end}]}`;
  const text = Buffer.from(`{${entry(0, 4)},${entry(4, 8)}}`);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(path, Buffer.concat([length, text, Buffer.alloc(8)]));
  const outcomes = new Outcomes();
  await checkTiles(path, outcomes);
  expect(outcomes.refused).toBe(1);
});

test('the index of shards', async () => {
  const name = 'llama-tiny-sharded-fp16';
  const path = join(folder, name);
  cpSync(`${fixtures}/${name}`, path, { recursive: true });
  const index = json(`${path}/model.safetensors.index.json`);
  const outcomes = new Outcomes();
  await fc.assert(
    fc.asyncProperty(mutated(index), async (document) => {
      writeFileSync(`${path}/model.safetensors.index.json`, JSON.stringify(document));
      await outcomes.of(() => openModelFolder(path));
    }),
    { numRuns: 100 },
  );
  expect(outcomes.refused).toBeGreaterThan(20);
});

test('tokenizer.json and tokenizer_config.json', async () => {
  const path = join(folder, 'tokenizer');
  cpSync(`${fixtures}/tokenizer-llama3-style`, path, { recursive: true });
  const tokenizer = json(`${path}/tokenizer.json`);
  const config = {
    bos_token: { content: '<s>' },
    eos_token: '</s>',
    add_bos_token: true,
    chat_template: "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}{% endfor %}",
  };
  const outcomes = new Outcomes();
  await fc.assert(
    fc.asyncProperty(mutated(tokenizer), mutated(config), fc.boolean(), async (one, other, first) => {
      writeFileSync(`${path}/tokenizer.json`, JSON.stringify(first ? one : tokenizer));
      writeFileSync(`${path}/tokenizer_config.json`, JSON.stringify(first ? config : other));
      const loaded = await outcomes.of(() => loadTokenizer(path));
      const ids = loaded && (await outcomes.of(() => loaded.encode('In the beginning')));
      expect((ids ?? []).every((id) => Number.isSafeInteger(id))).toBe(true);
      if (loaded) await outcomes.of(() => loaded.encodeChat([{ role: 'user', content: 'Hello' }]));
    }),
    { numRuns: 100 },
  );
  expect(outcomes.refused).toBeGreaterThan(5);
  expect(outcomes.taken).toBeGreaterThan(50);
});
