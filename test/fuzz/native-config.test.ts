/**
 * Whatever reaches the native engine in place of what TypeScript resolves is refused in words or runs: it never
 * crashes.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { loadNative } from '../../src/engine/load-native.js';
import type { NativeEngineConfig } from '../../src/engine/native-addon.js';
import { nativeEngineConfig } from '../../src/engine/native-config.js';
import { realise } from '../../src/policy/realisation.js';
import { MIB } from '../../src/units.js';
import { workloadFromNumbers } from '../../src/workload/blocks.js';
import { describeNative, fixtureFolder, greedy } from '../engine/native.js';
import { temporaryFolder } from '../engine/temporary-folder.js';

const FIXTURES = ['opt-tiny-fp16', 'mixtral-tiny-fp32'];
const MINUTE = 60_000;
const NUM_RUNS = 120;
const CODES = ['out-of-memory', 'no-disk-space', 'bad-input', 'unsupported', 'no-device', 'engine'];

const NUMBERS = [-1, 0, 0.5, 1, 3, 7, 64, 1000, 2 ** 31, 2 ** 53, 1e300, -1e300, Infinity, NaN];
const ARRAYS = [new Uint8Array(), Uint8Array.of(1), Uint8Array.of(2, 2), Uint8Array.of(9, 9), new Float32Array(3)];
const NASTY: readonly unknown[] = [undefined, null, true, '', 'nonsense', '/nowhere', [], {}, ...NUMBERS, ...ARRAYS];

type Path = readonly (string | number)[];

/** Every place in the description of an engine, arrays of numbers as one. */
function pathsOf(value: unknown, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return [path];
  return [path, ...Object.entries(value).flatMap(([key, inner]) => pathsOf(inner, [...path, key]))];
}

function withValue(value: unknown, [key, ...rest]: Path, put: unknown): unknown {
  if (key === undefined) return put;
  const copy = Array.isArray(value) ? [...(value as unknown[])] : { ...(value as object) };
  const place = copy as Record<string | number, unknown>;
  place[key] = withValue(place[key], rest, put);
  return copy;
}

describeNative('the native engine', () => {
  const spillDirectory = temporaryFolder();

  test.each(FIXTURES)(
    '%s with something wrong in its description',
    async (name) => {
      const { Engine } = loadNative();
      const folder = await fixtureFolder(name);
      const policy = { ...everythingInMemory('cpu', 2), gpuBatchSize: 1, numGpuBatches: 2 };
      const realisation = realise(folder.model, policy, workloadFromNumbers(5, 3, 2), 'cpu');
      const good = nativeEngineConfig(folder, policy, realisation, {
        device: 'cpu',
        numThreads: 1,
        capacityBytes: { gpu: 0, cpu: 64 * MIB, disk: 64 * MIB },
        linkBytesPerSecond: { cpuToGpu: 0, gpuToCpu: 0 },
        spillDirectory,
        quantizationCache: '',
        trace: false,
      });
      const runOf = async (config: NativeEngineConfig) => {
        const engine = new Engine(config);
        try {
          await engine.open();
          return await engine.run([greedy([2, 3, 4, 5, 6], 3), greedy([7, 8], 2)], () => undefined);
        } finally {
          await engine.close();
        }
      };
      expect((await runOf(good)).sequences.map(({ tokenIds }) => tokenIds.length)).toEqual([3, 2]);

      const places = fc.constantFrom(...pathsOf(good).filter((path) => path.length > 0));
      let ran = 0;
      let refused = 0;
      await fc.assert(
        fc.asyncProperty(places, fc.constantFrom(...NASTY), async (path, put) => {
          try {
            await runOf(withValue(good, path, put) as NativeEngineConfig);
            ran++;
          } catch (error) {
            const { code, message } = error as Error & { code?: string };
            expect(CODES, `${path.join('.')} = ${String(put)}: ${message}`).toContain(code);
            refused++;
          }
        }),
        // What once crashed, first.
        {
          numRuns: NUM_RUNS,
          examples: [
            [['model', 'positionOffset'], -1],
            [['tensors', 0, 'cols'], Infinity],
            [['tensors', 0, 'rows'], 1e300],
          ],
        },
      );
      expect(refused).toBeGreaterThan(NUM_RUNS / 2);
      expect(ran).toBeGreaterThan(0);
    },
    3 * MINUTE,
  );
});
