/** The native code's own tests: kernels against slow twins, tiers, and the engine under random policies (native/test). */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';

const run = promisify(execFile);
const BUILD = fileURLToPath(new URL('../../build/native', import.meta.url));
const TESTS = [
  'kernels_test',
  'int4_fit_test',
  'thread_pool_test',
  'tier_test',
  'admission_test',
  'engine_test',
  'quantization_cache_test',
  'cuda_device_test',
  'cuda_emulated_engine_test',
  'cuda_kernels_test',
];
const MINUTES = 60_000;

const configured = existsSync(`${BUILD}/CMakeCache.txt`);
if (!configured) console.warn('skipped: the native engine is not built (npm run setup builds it)');

describe.skipIf(!configured)('native tests', () => {
  beforeAll(async () => {
    await run('cmake', ['-DFLEXPLAN_TESTS=ON', BUILD]);
    await run('cmake', ['--build', BUILD, '--parallel', '2', '--target', ...TESTS]);
  }, 10 * MINUTES);

  test.each(TESTS)(
    '%s',
    async (name) => {
      // A failing test exits with 1, so that execFile rejects with what it printed.
      const { stdout } = await run(`${BUILD}/${name}`);
      expect(stdout).toMatch(/[1-9]\d* passed, 0 failed/);
    },
    5 * MINUTES,
  );
});
