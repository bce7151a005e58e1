/**
 * The native code's own tests: kernels against slow twins, tiers, and the engine under random policies (native/test).
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';

const run = promisify(execFile);
const BUILD = fileURLToPath(new URL('../../build/native', import.meta.url));
const MINUTES = 60_000;

const configured = existsSync(`${BUILD}/CMakeCache.txt`);
if (!configured) console.warn('skipped: the native engine is not built (npm run setup builds it)');

describe.skipIf(!configured)('native tests', () => {
  beforeAll(async () => {
    await run('cmake', ['-DFLEXPLAN_TESTS=ON', BUILD]);
    await run('cmake', ['--build', BUILD, '--parallel', '2']);
  }, 10 * MINUTES);

  test(
    'all pass',
    async () => {
      // A failing test exits with 1, so that execFile rejects with what it printed.
      const parallel = String(availableParallelism());
      const options = ['--test-dir', BUILD, '--parallel', parallel, '--output-on-failure', '--no-tests=error'];
      const { stdout } = await run('ctest', options);
      expect(stdout).toMatch(/100% tests passed, 0 tests failed out of [1-9]\d/);
    },
    15 * MINUTES,
  );
});
