/** Where 4-bit weights are kept, and whether they are. What is in the file: native/test/quantization_cache_test.cpp. */
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { openModelFolder } from '../../src/engine/model-folder.js';
import { quantizationCachePath } from '../../src/engine/quantization-cache.js';
import { describeNative, fixtureFolder, greedy, ROOT, runOnce } from './native.js';
import { temporaryFolder } from './temporary-folder.js';

const temporary = temporaryFolder();
const folder = await fixtureFolder('llama-tiny-bf16');
afterEach(() => vi.unstubAllEnvs());

describe('the place', () => {
  test('beside the model', async () => {
    expect(await quantizationCachePath(folder, { leastBytes: 0 })).toBe(join(folder.path, '.flexplan-4bit-weights'));
  });

  test('small models and large files are not kept', async () => {
    expect(await quantizationCachePath(folder, {})).toBe('');
    expect(await quantizationCachePath(folder, { leastBytes: 0, limitBytes: 10_000 })).toBe('');
  });

  test('the caches of the user where the model folder cannot be written to', async () => {
    vi.stubEnv('XDG_CACHE_HOME', join(temporary, 'caches'));
    const elsewhere = { ...folder, path: join(temporary, 'gone') };
    const path = await quantizationCachePath(elsewhere, { leastBytes: 0 });
    expect(path).toMatch(/\/caches\/flexplan\/gone-[0-9a-f]{16}\.flexplan-4bit-weights$/);
    expect(existsSync(join(temporary, 'caches/flexplan'))).toBe(true);
    const other = await quantizationCachePath({ ...folder, path: join(temporary, 'too') }, { leastBytes: 0 });
    expect(other).not.toBe(path);
  });

  test('nowhere', async () => {
    const file = join(temporary, 'file');
    writeFileSync(file, '');
    expect(await quantizationCachePath(folder, { leastBytes: 0, directory: join(file, 'no') })).toBe('');
  });
});

describeNative('an engine', () => {
  test('keeps what it quantized, uses it, and can be told not to', async () => {
    const path = join(temporary, 'model');
    cpSync(`${ROOT}test/fixtures/llama-tiny-bf16`, path, { recursive: true });
    // A file that has just been written may change again unseen.
    await sleep(3100);
    const model = await openModelFolder(path);
    const sequences = [greedy([2, 5, 7], 6)];
    const policy = { ...everythingInMemory('cpu', 1), weightBits: 4 as const };
    const tokens = async (changes: object) =>
      (await runOnce(model, sequences, { policy, ...changes })).result.sequences[0]!.tokenIds;

    const expected = await tokens({ quantizationCache: false });
    expect(await tokens({})).toEqual(expected);
    const file = join(path, '.flexplan-4bit-weights');
    expect(existsSync(file)).toBe(false);

    const kept = { quantizationCache: { leastBytes: 0 } };
    expect(await tokens({ ...kept, capacityBytes: { disk: 1000 } })).toEqual(expected);
    expect(existsSync(file)).toBe(false);
    expect(await tokens(kept)).toEqual(expected);
    const { ino, size } = statSync(file);
    expect(await tokens(kept)).toEqual(expected);
    expect(statSync(file)).toMatchObject({ ino, size });
    expect(readdirSync(path).filter((name) => name.startsWith('.'))).toEqual(['.flexplan-4bit-weights']);

    const directory = join(temporary, 'elsewhere');
    mkdirSync(directory);
    expect(await tokens({ quantizationCache: { leastBytes: 0, directory } })).toEqual(expected);
    expect(readdirSync(directory)).toHaveLength(1);
    rmSync(directory, { recursive: true });
  });
});
