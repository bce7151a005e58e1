/** Where things live, how they are batched and where attention runs must not be seen in the results: bit for bit. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { RunResult } from '../../src/engine/engine.js';
import type { Policy } from '../../src/policy/policy.js';
import { MIB } from '../../src/units.js';
import { arbitraryCase } from './arbitrary-policy.js';
import { describeNative, fixtureFolder, greedy, runOnce } from './native.js';
import { everythingInMemory } from '../../src/engine/default-policy.js';

const EMULATED = {
  capacityBytes: { gpu: 64 * MIB },
  // Fast, so that the test is about results; pacing is tested in the native tests.
  linkBytesPerSecond: { cpuToGpu: 8e9, gpuToCpu: 8e9 },
};

/** Different lengths, one ended early by a stop token, one sampled: every way to leave a step. */
const SEQUENCES = [1, 9, 3, 17, 5, 2, 12, 30, 4, 7].map((promptTokens, i) =>
  greedy(
    Array.from({ length: promptTokens }, (_, t) => (i * 31 + t * 17 + 3) % 512),
    [6, 1, 9, 4, 12, 3, 8, 5, 2, 7][i]!,
    { logitsSteps: 3, ...(i % 3 === 2 ? { temperature: 0.8, topP: 0.9, seed: i } : {}) },
  ),
);

function outputs({ sequences }: RunResult): unknown {
  return sequences.map(({ tokenIds, logits, finishReason }) => ({
    tokenIds: [...tokenIds],
    // The bits themselves: -0 and NaN too.
    logits: logits.map((row) => Buffer.from(row.buffer, row.byteOffset, row.byteLength).toString('base64')),
    finishReason,
  }));
}

/** How many of all policies had what could make a difference. */
const met = { disk: 0, cpuAttention: 0, movedKv: 0, streamed: 0 };

async function checkPlacements(fixture: string, bits: Pick<Policy, 'weightBits' | 'kvCacheBits'>, numRuns: number) {
  const folder = await fixtureFolder(fixture);
  const inMemory = { ...everythingInMemory('cpu', SEQUENCES.length), ...bits };
  const { result: reference } = await runOnce(folder, SEQUENCES, { policy: inMemory });
  const expected = outputs(reference);
  await fc.assert(
    fc.asyncProperty(arbitraryCase(bits), async ({ device, policy }) => {
      const { engine, result } = await runOnce(folder, SEQUENCES, {
        device,
        policy,
        ...(device === 'emulated' ? EMULATED : {}),
      });
      expect(outputs(result)).toEqual(expected);
      const { bytes, slots } = engine.realisation;
      expect(result.kvCacheBytes).toEqual(bytes.kvCache);
      expect(result.activationBytes).toEqual(bytes.activations);
      expect(result.peakBytes.gpu).toBeLessThanOrEqual(device === 'emulated' ? EMULATED.capacityBytes.gpu : 0);
      if (slots.kvCache.some(({ tier }) => tier === 'disk')) met.disk++;
      if (slots.kvCache.some(({ cpuAttention }) => cpuAttention)) met.cpuAttention++;
      if (slots.kvCache.some(({ tier, cpuAttention }) => tier === 'cpu' && !cpuAttention)) met.movedKv++;
      if (result.trafficBytes.decode.cpuToGpu > 0) met.streamed++;
    }),
    { numRuns },
  );
}

describeNative('random policies give the same tokens and logits', () => {
  const FULL = { weightBits: 16, kvCacheBits: 16 } as const;

  test.each([
    ['opt-tiny-fp16', 20],
    ['llama-tiny-bf16', 20],
    ['mistral-tiny-swa16-fp32', 10],
    ['mixtral-tiny-fp32', 10],
    ['opt-tiny-350m-style-fp32', 10],
  ])('%s, %i policies', (fixture, numRuns) => checkPlacements(fixture, FULL, numRuns), 120_000);

  test.each([
    [{ weightBits: 4, kvCacheBits: 16 }],
    [{ weightBits: 16, kvCacheBits: 4 }],
    [{ weightBits: 4, kvCacheBits: 4 }],
  ] as const)('%j', (bits) => checkPlacements('llama-tiny-sharded-fp16', bits, 10), 120_000);

  test('they met everything that could make a difference', () => {
    for (const [what, times] of Object.entries(met)) expect(times, what).toBeGreaterThanOrEqual(5);
  });
});
