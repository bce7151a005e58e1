/** What the engine does not take, said in one line. */
import { expect, test } from 'vitest';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { Engine, type Sequence } from '../../src/engine/engine.js';
import { describeNative, engineOptions, failureOf, fixtureFolder, greedy, systemInfo } from './native.js';

const { cudaDevices } = await systemInfo();
const SHORT = [greedy([2, 5, 7], 4), greedy([2, 9], 4)];

describeNative('refusals', () => {
  const open = async (changes: object) =>
    failureOf(Engine.open(engineOptions(await fixtureFolder('opt-tiny-fp32'), SHORT, changes)));

  test('a cap that is too small names the tier', async () => {
    const error = await open({ capacityBytes: { cpu: 100_000 } });
    expect(error.code).toBe('out-of-memory');
    expect(error.message).toMatch(/cpu/);
    expect(error.message).not.toContain('\n');
  });

  test('the cap of an emulated GPU', async () => {
    const policy = everythingInMemory('emulated', 2);
    const link = { linkBytesPerSecond: { cpuToGpu: 1e9, gpuToCpu: 1e9 } };
    const error = await open({ policy, device: 'emulated', capacityBytes: { gpu: 50_000 }, ...link });
    expect(error.code).toBe('out-of-memory');
    expect(error.message).toMatch(/gpu/);
    expect((await open({ policy, device: 'emulated' })).code).toBe('usage');
  });

  test.skipIf(cudaDevices.length > 0)('no CUDA device here', async () => {
    expect((await open({ policy: everythingInMemory('cuda', 2), device: 'cuda' })).code).toBe('no-device');
  });

  test('a policy for a GPU on a machine without, a spill folder that is not there', async () => {
    expect((await open({ policy: everythingInMemory('cuda', 2) })).code).toBe('bad-input');
    expect((await open({ spillDirectory: '/nowhere' })).message).toMatch(/\/nowhere/);
  });

  test.each<[string, Partial<Sequence>, RegExp]>([
    ['no tokens', { promptIds: new Int32Array(0) }, /at least one token/],
    ['an unknown token', { promptIds: Int32Array.of(512) }, /0 to 511, got 512/],
    ['too long', { promptIds: new Int32Array(120), maxTokens: 10 }, /128 positions/],
    ['maxTokens', { maxTokens: -1 }, /maxTokens/],
    ['temperature', { temperature: Number.NaN }, /temperature/],
    ['topP', { topP: 0 }, /top_p/],
  ])('a sequence with %s', async (_, changes, message) => {
    const engine = await Engine.open(engineOptions(await fixtureFolder('opt-tiny-fp32'), SHORT));
    const error = await failureOf(engine.run([SHORT[0]!, { ...SHORT[1]!, ...changes }]));
    await engine.close();
    expect(error.code).toBe('bad-input');
    expect(error.message).toMatch(/^sequence 1: /);
    expect(error.message).toMatch(message);
  });
});
