/** What a run takes of the machine, and what it tells of itself. */
import { readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { Engine } from '../../src/engine/engine.js';
import { TIERS } from '../../src/tiers.js';
import { MIB } from '../../src/units.js';
import { describeNative, engineOptions, failureOf, fixtureFolder, greedy, runOnce } from './native.js';
import { temporaryFolder } from './temporary-folder.js';

describeNative('what a run takes and tells', () => {
  const thirds = { gpu: 0.4, cpu: 0.3, disk: 0.3 };
  const policy = {
    ...everythingInMemory('emulated', 2),
    gpuBatchSize: 3,
    numGpuBatches: 2,
    placement: { weights: thirds, kvCache: thirds, activations: thirds },
    cpuAttentionFraction: 1,
  };
  const sequences = Array.from({ length: 6 }, (_, i) => greedy([2, 5 + i, 9], 5));
  const emulated = { policy, device: 'emulated', linkBytesPerSecond: { cpuToGpu: 1e9, gpuToCpu: 1e9 } } as const;
  const folder = fixtureFolder('opt-tiny-fp16');

  test('caps are exact: what it took suffices, a byte less is refused', async () => {
    const { result } = await runOnce(await folder, sequences, { ...emulated, capacityBytes: { gpu: 64 * MIB } });
    const { peakBytes } = result;
    const again = await runOnce(await folder, sequences, { ...emulated, capacityBytes: peakBytes });
    expect(again.result.peakBytes).toEqual(peakBytes);
    for (const tier of TIERS) {
      const capacityBytes = { ...peakBytes, [tier]: peakBytes[tier] - 1 };
      const error = await failureOf(runOnce(await folder, sequences, { ...emulated, capacityBytes }));
      expect(error.code).toBe(tier === 'disk' ? 'no-disk-space' : 'out-of-memory');
      expect(error.message).toContain(tier);
    }
  });

  test('nothing stays in the spill folder, not even while it runs', async () => {
    const spillDirectory = temporaryFolder();
    const capacityBytes = { gpu: 64 * MIB };
    const options = engineOptions(await folder, sequences, { ...emulated, capacityBytes, spillDirectory });
    const engine = await Engine.open(options);
    const seen = new Set<string>();
    await engine.run(sequences, { onStep: () => readdirSync(spillDirectory).forEach((name) => seen.add(name)) });
    process.kill(engine.pid!, 'SIGKILL');
    await engine.close();
    expect([...seen, ...readdirSync(spillDirectory)]).toEqual([]);
  });

  test('a trace has every task in its place, only when asked', async () => {
    const capacityBytes = { gpu: 64 * MIB };
    const traced = await runOnce(await folder, sequences, { ...emulated, capacityBytes, trace: true });
    const silent = await runOnce(await folder, sequences, { ...emulated, capacityBytes });
    expect(silent.result.trace).toEqual([]);
    const { trace, prefillSeconds, decodeSeconds } = traced.result;
    expect(new Set(trace.map(({ task }) => task))).toEqual(
      new Set(['loadWeights', 'loadKvCache', 'loadActivations', 'compute', 'storeKvCache', 'storeActivations']),
    );
    // 6 schedule layers x 2 GPU batches x 5 steps, none twice.
    const computed = trace.filter(({ task }) => task === 'compute');
    expect(new Set(computed.map(({ step, layer, gpuBatch }) => `${step} ${layer} ${gpuBatch}`)).size).toBe(60);
    expect(computed).toHaveLength(60);
    for (const { startSeconds, endSeconds } of trace) {
      expect(startSeconds).toBeGreaterThanOrEqual(0);
      expect(endSeconds).toBeGreaterThanOrEqual(startSeconds);
      expect(endSeconds).toBeLessThanOrEqual((prefillSeconds + decodeSeconds) * 1.05 + 0.05);
    }
  });
});
