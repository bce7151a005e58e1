/**
 * The estimate against the engine itself: bytes are a matter of fact, so they agree; peaks are never promised too low.
 */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { estimate } from '../../src/cost-model/estimate.js';
import { lengthOf, workloadOf } from '../../src/engine/generate.js';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import type { RunResult } from '../../src/engine/engine.js';
import type { ModelConfig } from '../../src/models/model-config.js';
import { LINKS, TIERS, type Link } from '../../src/tiers.js';
import type { Policy, Schedule } from '../../src/policy/policy.js';
import { realise } from '../../src/policy/realisation.js';
import { workloadFromSequences } from '../../src/workload/blocks.js';
import { arbitraryCase, type Case } from '../engine/arbitrary-policy.js';
import { describeNative, fixtureFolder, greedy, onDevice, runOnce } from '../engine/native.js';
import { machine } from './machines.js';

/** Embedding rows on cpu and disk are estimated for token ids spread evenly; everything else is exact. */
const TRAFFIC_TOLERANCE = 0.01;
/** Pages that the estimate rounds up and the engine shares, on models of a few hundred kB. */
const PEAK_SLACK_BYTES = 64 * 4096;

const sequences = Array.from({ length: 9 }, (_, n) =>
  greedy(
    Array.from({ length: 5 + ((n * 7) % 11) }, (_, t) => (t * 97 + n * 211 + 5) % 509),
    3 + (n % 4),
  ),
);
const workload = workloadFromSequences(sequences.map(lengthOf));

/** Shorter and longer than a window of 16, and than that and a chunk of 64. */
const longSequences = [5, 90, 17, 76, 80, 60, 16, 81, 95].map((promptTokens, n) =>
  greedy(
    Array.from({ length: promptTokens }, (_, t) => (t * 97 + n * 211 + 5) % 509),
    3 + ((n * 11) % 24),
  ),
);
const longWorkload = workloadFromSequences(longSequences.map(lengthOf));

const ON_GPU = { gpu: 1, cpu: 0, disk: 0 };
const ON_CPU = { gpu: 0, cpu: 1, disk: 0 };
const bothPhases = ({ prefill, decode }: RunResult['trafficBytes'], link: Link) => prefill[link] + decode[link];

describeNative('estimate against engine', () => {
  it.each([
    ['opt-tiny-fp16', 16],
    ['opt-tiny-350m-style-fp32', 4],
    ['llama-tiny-bf16', 4],
    ['mixtral-tiny-fp32', 16],
    ['qwen3-tiny-fp32', 16],
  ] as const)(
    '%s, %i bits: traffic within a hundredth, peaks never above the estimate',
    async (name, bits) => {
      const folder = await fixtureFolder(name);
      let moved = 0;
      const compare = async ({ device, policy }: Case) => {
        const { result } = await runOnce(folder, sequences, onDevice(device, policy, workload));
        const estimated = estimate(folder.model, machine(device), workload, policy, { realised: true });
        for (const phase of ['prefill', 'decode'] as const)
          for (const link of LINKS) {
            const measured = result.trafficBytes[phase][link];
            if (measured > 0) moved++;
            expect(Math.abs(estimated.trafficBytes[phase][link] - measured)).toBeLessThanOrEqual(
              TRAFFIC_TOLERANCE * measured,
            );
          }
        for (const tier of TIERS) {
          expect(estimated.peakBytes[tier]).toBeGreaterThanOrEqual(result.peakBytes[tier]);
          expect(estimated.peakBytes[tier]).toBeLessThanOrEqual(result.peakBytes[tier] * 1.05 + PEAK_SLACK_BYTES);
        }
      };
      await fc.assert(fc.asyncProperty(arbitraryCase({ weightBits: bits, kvCacheBits: bits }), compare), {
        numRuns: 6,
      });
      expect(moved).toBeGreaterThan(6);
    },
    60_000,
  );

  it.each([16, 4] as const)(
    'of a window the rows that attention reads are moved, %i bits: the same results, to the byte',
    async (bits) => {
      const folder = await fixtureFolder('mistral-tiny-swa16-fp32');
      const { result: expected } = await runOnce(folder, longSequences, {
        policy: { ...everythingInMemory('cpu', 1), kvCacheBits: bits },
      });
      let saved = 0;
      const compare = async ({ device, policy: any }: Case, schedule: Schedule) => {
        // Embedding rows are the one thing that is not estimated to the byte.
        const placement = { ...any.placement, weights: device === 'cpu' ? ON_CPU : ON_GPU };
        const policy: Policy = { ...any, placement, schedule };
        const { result } = await runOnce(folder, longSequences, onDevice(device, policy, longWorkload));
        expect(result.sequences).toEqual(expected.sequences);
        const estimateOf = (model: ModelConfig) =>
          estimate(model, machine(device), longWorkload, policy, { realised: true }).trafficBytes;
        const estimated = estimateOf(folder.model);
        const unlimited = estimateOf({ ...folder.model, slidingWindow: 128 });
        for (const link of LINKS) {
          expect(Math.round(bothPhases(estimated, link))).toBe(bothPhases(result.trafficBytes, link));
          if (bothPhases(estimated, link) < 0.8 * bothPhases(unlimited, link)) saved++;
        }
      };
      await fc.assert(
        fc.asyncProperty(
          arbitraryCase({ weightBits: 16, kvCacheBits: bits }),
          fc.constantFrom<Schedule>('zigzag', 'diagonal'),
          compare,
        ),
        { numRuns: 16 },
      );
      expect(saved).toBeGreaterThan(4);
    },
    60_000,
  );

  it('prompts that begin alike: the hidden states that are left to move', async () => {
    const folder = await fixtureFolder('llama-tiny-bf16');
    const common = 24;
    const alike = sequences.map(({ promptIds, maxTokens }, n) =>
      greedy([...Array.from({ length: common }, (_, t) => 7 * t + 5), n, ...promptIds], maxTokens),
    );
    const job = workloadOf(alike);
    expect(job.sharedPromptTokens).toBe(common);
    let moved = 0;
    const compare = async ({ device, policy: any }: Case) => {
      const placement = { ...any.placement, weights: device === 'cpu' ? ON_CPU : ON_GPU, activations: ON_CPU };
      const policy: Policy = { ...any, placement };
      const { result } = await runOnce(folder, alike, onDevice(device, policy, job));
      expect(result.sharedPrefixTokens).toBe(common * (alike.length - result.numBlocks));
      const { trafficBytes } = estimate(folder.model, machine(device), job, policy, { realised: true });
      for (const link of LINKS)
        expect(Math.round(bothPhases(trafficBytes, link))).toBe(bothPhases(result.trafficBytes, link));
      moved += result.trafficBytes.prefill.cpuToGpu;
    };
    await fc.assert(fc.asyncProperty(arbitraryCase({ weightBits: 16, kvCacheBits: 16 }), compare), { numRuns: 16 });
    expect(moved).toBeGreaterThan(0);
  }, 60_000);

  it('sparse attention: peaks never above the estimate, scores included', async () => {
    const folder = await fixtureFolder('llama-tiny-bf16');
    let larger = 0;
    const compare = async ({ device, policy: dense }: Case, schedule: Schedule) => {
      const policy: Policy = { ...dense, schedule, sparseValueFraction: 0.3 };
      const { result } = await runOnce(folder, longSequences, onDevice(device, policy, longWorkload));
      const peaksOf = (any: Policy) =>
        estimate(folder.model, machine(device), longWorkload, any, { realised: true }).peakBytes;
      const peaks = peaksOf(policy);
      for (const tier of TIERS) {
        expect(peaks[tier]).toBeGreaterThanOrEqual(result.peakBytes[tier]);
        expect(peaks[tier]).toBeLessThanOrEqual(result.peakBytes[tier] * 1.05 + PEAK_SLACK_BYTES);
        if (result.peakBytes[tier] > peaksOf({ ...dense, schedule })[tier]) larger++;
      }
    };
    const schedules = fc.constantFrom<Schedule>('zigzag', 'diagonal');
    await fc.assert(fc.asyncProperty(arbitraryCase({ weightBits: 16, kvCacheBits: 16 }), schedules, compare), {
      numRuns: 8,
    });
    expect(larger).toBeGreaterThan(4);
  }, 60_000);

  it.each([
    ['opt-tiny-fp16', 16],
    ['llama-tiny-bf16', 4],
    ['mixtral-tiny-fp32', 16],
  ] as const)(
    '%s, %i bits, diagonal: outputs as in zig-zag, peaks never above the estimate',
    async (name, bits) => {
      const folder = await fixtureFolder(name);
      let refilled = 0;
      const compare = async ({ device, policy }: Case) => {
        const diagonal: Policy = { ...policy, schedule: 'diagonal' };
        const { result: expected } = await runOnce(folder, sequences, onDevice(device, policy, workload));
        const { result } = await runOnce(folder, sequences, onDevice(device, diagonal, workload));
        expect(result.sequences).toEqual(expected.sequences);
        if (expected.numBlocks > 1) refilled++;
        const estimated = estimate(folder.model, machine(device), workload, diagonal, { realised: true });
        for (const tier of TIERS) {
          expect(estimated.peakBytes[tier]).toBeGreaterThanOrEqual(result.peakBytes[tier]);
          expect(estimated.peakBytes[tier]).toBeLessThanOrEqual(result.peakBytes[tier] * 1.05 + PEAK_SLACK_BYTES);
        }
        const { bytes } = realise(folder.model, diagonal, workload, device);
        expect(result.kvCacheBytes).toEqual(bytes.kvCache);
        expect(result.activationBytes).toEqual(bytes.activations);
      };
      await fc.assert(fc.asyncProperty(arbitraryCase({ weightBits: bits, kvCacheBits: bits }), compare), {
        numRuns: 12,
      });
      expect(refilled).toBeGreaterThan(0);
    },
    60_000,
  );
});
