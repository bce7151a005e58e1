/** The memory that the system sees the engine take is the memory that the plan says it takes. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { Engine, type EngineOptions } from '../../src/engine/engine.js';
import { type ModelFolder, openModelFolder } from '../../src/engine/model-folder.js';
import type { BytesPerTier } from '../../src/engine/native-addon.js';
import { MIB } from '../../src/units.js';
import { describeNative, engineOptions, fixtureFolder, greedy } from './native.js';
import { writeModel } from './random-model.js';
import { temporaryFolder } from './temporary-folder.js';

const MINUTE = 60_000;
/**
 * What the allowance covers does not grow with the plan: stacks of threads, what the allocator keeps, ends of huge
 * pages.
 */
const ALLOWANCE_BYTES = 4 * MIB;
const ALLOWED_FRACTION = 0.02;

const CONFIG = {
  model_type: 'llama',
  hidden_size: 512,
  intermediate_size: 1536,
  num_hidden_layers: 5,
  num_attention_heads: 8,
  num_key_value_heads: 8,
  vocab_size: 2000,
  max_position_embeddings: 1024,
  tie_word_embeddings: false,
};
const SEQUENCES = Array.from({ length: 8 }, (_, i) =>
  greedy(
    Array.from({ length: 200 }, (_, t) => 5 + ((i + t) % 1000)),
    4,
  ),
);

/**
 * Bytes that the engine's process has had at most, as the system counted them, and what the engine says of its tiers.
 */
async function measured(options: EngineOptions, sequences = SEQUENCES) {
  const engine = await Engine.open(options);
  try {
    const { peakBytes } = await engine.run(sequences);
    const [, kilobytes] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${engine.pid}/status`, 'utf8'))!;
    return { residentBytes: 1024 * Number(kilobytes), peakBytes };
  } finally {
    await engine.close();
  }
}

const inMemory = ({ gpu, cpu }: BytesPerTier) => gpu + cpu;

describeNative('resident memory', () => {
  const path = temporaryFolder();
  let folder: ModelFolder;
  /** A process with an engine that has next to nothing in it. */
  let emptyBytes: number;

  beforeAll(async () => {
    writeModel(join(path, 'model'), { config: CONFIG, seed: 1 });
    folder = await openModelFolder(join(path, 'model'));
    const few = [greedy([2, 5], 2)];
    const empty = await measured(engineOptions(await fixtureFolder('opt-tiny-fp16'), few), few);
    emptyBytes = empty.residentBytes - inMemory(empty.peakBytes);
  }, MINUTE);

  const all = { gpu: 1, cpu: 0, disk: 0 };
  const onDisk = { gpu: 0, cpu: 0, disk: 1 };
  const thirds = { gpu: 0.3, cpu: 0.4, disk: 0.3 };
  const base = everythingInMemory('cpu', 8);
  const split = { ...base, gpuBatchSize: 2, numGpuBatches: 4 };
  const emulated = {
    device: 'emulated',
    capacityBytes: { gpu: 400 * MIB },
    linkBytesPerSecond: { cpuToGpu: 4e9, gpuToCpu: 4e9 },
  } as const;
  const placed = (fractions: typeof all) => ({ weights: fractions, kvCache: fractions, activations: fractions });

  test.skipIf(process.platform !== 'linux').each<[string, Partial<EngineOptions>]>([
    ['everything in memory', { policy: base }],
    ['everything on disk', { policy: { ...split, placement: placed(onDisk) } }],
    ['4-bit weights and KV cache', { policy: { ...base, weightBits: 4, kvCacheBits: 4 } }],
    ['4-bit on disk', { policy: { ...split, weightBits: 4, placement: placed(onDisk) } }],
    ['a GPU', { policy: { ...split, placement: placed(all) }, ...emulated }],
    [
      'a GPU and all tiers',
      { policy: { ...split, placement: placed(thirds), cpuAttentionFraction: 0.5 }, ...emulated },
    ],
  ])(
    '%s',
    async (_, changes) => {
      const { residentBytes, peakBytes } = await measured(engineOptions(folder, SEQUENCES, changes));
      const taken = residentBytes - emptyBytes;
      expect(taken).toBeLessThan(inMemory(peakBytes) * (1 + ALLOWED_FRACTION) + ALLOWANCE_BYTES);
      // The measure measures: what the plan counts is there, but for buffers that this job did not fill.
      expect(taken).toBeGreaterThan(0.8 * inMemory(peakBytes));
    },
    MINUTE,
  );
});
