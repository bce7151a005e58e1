/**
 * Every measurement of the addon answers in its own terms. That the numbers are right is for the profiler's tests to
 * say.
 */
import { expect, test } from 'vitest';
import type { NativeSamples } from '../../src/engine/native-addon.js';
import { type Instruments, withInstruments } from '../../src/engine/instruments.js';
import { MIB } from '../../src/units.js';
import { describeNative } from './native.js';
import { temporaryFolder } from './temporary-folder.js';

const directory = temporaryFolder();
const repetitions = 3;
const disk = { directory, fileBytes: 4 * MIB, requestBytes: MIB, repetitions };
const heads = { numHeads: 4, numKvHeads: 2, headDim: 16, dtype: 'float16', kvCacheBits: 16 } as const;
const matrix = { tokens: 2, rows: 64, cols: 32, dtype: 'float16', weightBits: 16 } as const;
const kvBytes = 2 * 3 * 64 * heads.numKvHeads * heads.headDim * 2;

/** What is measured, and the work of one repetition. */
const MEASUREMENTS: [string, (instruments: Instruments) => Promise<NativeSamples>, number][] = [
  ['memoryRead', (i) => i.memoryRead({ bytes: 8 * MIB, repetitions, numThreads: 2 }), 8 * MIB],
  ['matmul', (i) => i.matmul({ ...matrix, repetitions, numThreads: 2 }), 2 * 2 * 64 * 32],
  ['matmul, 4 bits', (i) => i.matmul({ ...matrix, weightBits: 4, repetitions, numThreads: 2 }), 2 * 2 * 64 * 32],
  [
    'decode attention',
    (i) => i.attention({ ...heads, phase: 'decode', sequences: 3, tokens: 64, repetitions, numThreads: 2 }),
    kvBytes,
  ],
  ['diskWrite', (i) => i.diskWrite(disk), 4 * MIB],
  ['diskRead', (i) => i.diskRead(disk), 4 * MIB],
  [
    'linkCopy',
    (i) => i.linkCopy({ device: 'emulated', link: 'cpuToGpu', linkBytesPerSecond: 1e9, bytes: MIB, repetitions }),
    MIB,
  ],
];

describeNative('instruments', () => {
  test.each(MEASUREMENTS)('%s', async (_, measure, work) => {
    const samples = await withInstruments(measure);
    expect(samples.work).toBe(work);
    expect(samples.seconds).toHaveLength(repetitions);
    for (const seconds of samples.seconds) expect(seconds).toBeGreaterThan(0);
  });

  // What the loops would take without launches is taken off, so a disturbed sample may be nothing.
  test.each([
    ['launches in a row', 0, 20],
    ['a launch after a wait', 1e-4, 1],
  ])('%s', async (_, pauseSeconds, launches) => {
    const samples = await withInstruments((i) => i.launch({ pauseSeconds, repetitions, numThreads: 2 }));
    expect(samples.work).toBe(launches);
    expect(samples.seconds).toHaveLength(repetitions);
    for (const seconds of samples.seconds) expect(seconds).toBeGreaterThanOrEqual(0);
  });

  test('a paced copy takes at least as long as its rate says', async () => {
    const options = {
      device: 'emulated',
      link: 'gpuToCpu',
      linkBytesPerSecond: 50e6,
      bytes: MIB,
      repetitions,
    } as const;
    const { seconds } = await withInstruments((i) => i.linkCopy(options));
    for (const second of seconds) expect(second).toBeGreaterThan((0.95 * MIB) / 50e6);
  });

  test('prefill attention and hand-overs count their work', async () => {
    await withInstruments(async (i) => {
      const prefill = { ...heads, phase: 'prefill', sequences: 1, tokens: 32, repetitions, numThreads: 2 } as const;
      expect((await i.attention(prefill)).work).toBeGreaterThan(0);
      expect((await i.task({ repetitions })).work).toBeGreaterThanOrEqual(1);
    });
  });

  test('this machine', async () => {
    const info = await withInstruments((i) => i.systemInfo());
    expect(info.isas).toContain(info.isa);
    expect(info.isas).toContain('generic');
  });

  test('a failure in between ends the process and comes through', async () => {
    await expect(withInstruments(() => Promise.reject(new Error('mine')))).rejects.toThrow('mine');
    const nowhere = { ...disk, directory: '/nowhere' };
    await expect(withInstruments((i) => i.diskRead(nowhere))).rejects.toMatchObject({ name: 'FlexplanError' });
  });
});
