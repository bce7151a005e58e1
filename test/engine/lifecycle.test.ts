/**
 * What many engines leave behind: nothing. The native object in a process of its own, and processes that are killed at
 * any moment.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { nativeEngineConfig } from '../../src/engine/native-config.js';
import { Worker } from '../../src/engine/worker.js';
import { FlexplanError } from '../../src/errors.js';
import { realise } from '../../src/policy/realisation.js';
import { describeNative, fixtureFolder, greedy, ROOT } from './native.js';

const MINUTE = 60_000;

/**
 * Opens and closes engines, two at once; some run, some close while they run. Prints what is left after 100 and after
 * each 250 more.
 */
const CYCLES = `
  const { readdirSync, readFileSync } = await import('node:fs');
  const from = (path) => import(${JSON.stringify(ROOT)} + 'dist/' + path);
  const { loadNative } = await from('engine/load-native.js');
  const { openModelFolder } = await from('engine/model-folder.js');
  const { nativeEngineConfig } = await from('engine/native-config.js');
  const { realise } = await from('policy/realisation.js');
  const folder = await openModelFolder(${JSON.stringify(`${ROOT}test/fixtures/opt-tiny-fp16`)});
  const third = { gpu: 0.4, cpu: 0.3, disk: 0.3 };
  const policy = {
    gpuBatchSize: 2, numGpuBatches: 2, placement: { weights: third, kvCache: third, activations: third },
    weightBits: 16, kvCacheBits: 16, quantGroupSize: 64, cpuAttentionFraction: 0.5, overlap: true,
  };
  const config = nativeEngineConfig(
    folder, policy, realise(folder.model, policy, { promptTokens: 3, genTokens: 4, numSequences: 4 }, 'emulated'),
    {
      device: 'emulated', numThreads: 2, capacityBytes: { gpu: 64e6, cpu: 1e9, disk: 1e9 },
      linkBytesPerSecond: { cpuToGpu: 1e9, gpuToCpu: 1e9 }, spillDirectory: '/tmp', quantizationCache: '', trace: false,
    },
  );
  const sequences = [0, 1, 2, 3].map((n) => ({
    promptIds: Int32Array.of(2, 5 + n, 7), maxTokens: 4, temperature: 0, topP: 1, seed: 0,
    stopIds: new Int32Array(0), logitsSteps: 0, scorePrompt: false,
  }));
  const native = loadNative();
  async function cycle(n) {
    const engine = new native.Engine(config);
    await engine.open();
    if (n % 10 === 0) await engine.run(sequences, () => undefined);
    else if (n % 10 === 1) engine.run(sequences, () => undefined).catch(() => undefined);
    await engine.close();
  }
  function left() {
    globalThis.gc();
    const status = readFileSync('/proc/self/status', 'utf8');
    const field = (name) => Number(new RegExp(name + ':\\\\s+(\\\\d+)').exec(status)[1]);
    return { residentBytes: field('VmRSS') * 1024, threads: field('Threads'), descriptors: readdirSync('/proc/self/fd').length };
  }
  async function cycles(count) {
    for (let n = 0; n < count; n += 2) await Promise.all([cycle(n), cycle(n + 1)]);
    return left();
  }
  const states = [await cycles(100)];
  for (let part = 0; part < 4; part++) states.push(await cycles(250));
  console.log(JSON.stringify(states));`;

interface Left {
  readonly residentBytes: number;
  readonly threads: number;
  readonly descriptors: number;
}

describeNative('lifecycle', () => {
  test.skipIf(process.platform !== 'linux')(
    '1,000 engines leave no memory, thread or file behind',
    async () => {
      const child = spawn(process.execPath, ['--expose-gc', '--input-type=module', '-e', CYCLES], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let output = '';
      child.stdout.on('data', (piece: Buffer) => (output += piece.toString()));
      const [status] = (await once(child, 'close')) as [number];
      expect(status).toBe(0);
      const states = JSON.parse(output) as Left[];
      expect(states).toHaveLength(5);
      expect(new Set(states.map(({ threads }) => threads)).size).toBe(1);
      expect(new Set(states.map(({ descriptors }) => descriptors)).size).toBe(1);
      // What leaks grows in every part, what the allocators keep does not. An engine of this model holds 0.3 MB: one in
      // a hundred left behind would show.
      const growth = states.slice(1).map(({ residentBytes }, part) => residentBytes - states[part]!.residentBytes);
      expect(Math.min(...growth)).toBeLessThan(0.5e6);
    },
    3 * MINUTE,
  );

  test(
    'killed at any moment of starting, loading, running or closing: a typed error, no hang, and the next one works',
    async () => {
      const folder = await fixtureFolder('opt-tiny-fp32');
      const sequences = [greedy([2, 5, 7], 100)];
      const policy = everythingInMemory('cpu', 1);
      const realisation = realise(folder.model, policy, { promptTokens: 3, genTokens: 100, numSequences: 1 }, 'cpu');
      const config = nativeEngineConfig(folder, policy, realisation, {
        device: 'cpu',
        numThreads: 2,
        capacityBytes: { gpu: 0, cpu: 1e9, disk: 1e9 },
        linkBytesPerSecond: { cpuToGpu: 0, gpuToCpu: 0 },
        spillDirectory: '/tmp',
        quantizationCache: '',
        trace: false,
      });
      const job = async (worker: Worker) => {
        await worker.call('open', config);
        const { sequences: results } = await worker.call('run', sequences);
        await worker.close();
        return results[0]!.tokenIds.length;
      };
      const start = performance.now();
      expect(await job(new Worker())).toBe(100);
      const wholeMilliseconds = performance.now() - start;

      let killed = 0;
      for (let n = 0; n < 12; n++) {
        const worker = new Worker();
        const running = job(worker).catch((error: unknown) => error);
        await sleep((n / 10) * wholeMilliseconds);
        worker.kill().catch(() => undefined);
        const outcome = await running;
        if (outcome !== 100) {
          expect(outcome).toBeInstanceOf(FlexplanError);
          expect(outcome).toMatchObject({ code: 'engine-died' });
          killed++;
        }
        await worker.close();
      }
      expect(killed).toBeGreaterThan(4);
      expect(await job(new Worker())).toBe(100);
    },
    3 * MINUTE,
  );
});
