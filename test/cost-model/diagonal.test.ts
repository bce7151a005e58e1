/** The diagonal schedule as predicted: its steps are those that the engine takes, and so is what it moves. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { simulateDiagonal } from '../../src/cost-model/diagonal-work.js';
import { estimate } from '../../src/cost-model/estimate.js';
import { Engine } from '../../src/engine/engine.js';
import { lengthOf } from '../../src/engine/generate.js';
import type { ModelConfig } from '../../src/models/model-config.js';
import { layerTensors, rowBytes } from '../../src/models/tensors.js';
import type { Policy } from '../../src/policy/policy.js';
import { realiseSlots } from '../../src/policy/slots.js';
import { LINKS, type Link } from '../../src/tiers.js';
import { workloadFromSequences } from '../../src/workload/blocks.js';
import { arbitraryCase, type Case } from '../engine/arbitrary-policy.js';
import { describeNative, engineOptions, fixtureFolder, greedy, onDevice } from '../engine/native.js';
import { gatedModel } from './examples.js';
import { machine } from './machines.js';

const sumOver = (traffic: Record<'prefill' | 'decode', Record<Link, number>>, link: Link) =>
  traffic.prefill[link] + traffic.decode[link];

const layerBytes = (model: ModelConfig, weightBits: 16 | 4) =>
  Math.max(
    ...(['decoder', 'head'] as const).map((kind) =>
      layerTensors(model, kind).reduce((sum, tensor) => sum + tensor.rows * rowBytes(model, tensor, weightBits), 0),
    ),
  );

/** Everything is attended by the CPU: nothing is moved, and still a prompt may lack the rows that it passes through. */
const ATTENDED_ON_CPU: Case = {
  device: 'emulated',
  policy: {
    gpuBatchSize: 3,
    numGpuBatches: 1,
    placement: {
      weights: { gpu: 0, cpu: 0, disk: 1 },
      kvCache: { gpu: 0, cpu: 0, disk: 1 },
      activations: { gpu: 1 / 6, cpu: 0, disk: 5 / 6 },
    },
    weightBits: 16,
    kvCacheBits: 16,
    quantGroupSize: 64,
    cpuAttentionFraction: 0,
    diskKvCpuAttentionFraction: 1,
    prefillChunkTokens: 4,
    overlap: false,
  },
};

describeNative('diagonal against the engine', () => {
  const sequences = Array.from({ length: 17 }, (_, n) =>
    greedy(
      Array.from({ length: 3 + ((n * 37) % 70) }, (_, t) => (t * 97 + n * 211 + 5) % 509),
      1 + ((n * 29) % 47),
    ),
  );
  const workload = workloadFromSequences(sequences.map(lengthOf));

  it.each([
    ['opt-tiny-fp16', 16],
    ['llama-tiny-bf16', 4],
  ] as const)(
    '%s, %i bits: the same steps, the same bytes',
    async (name, bits) => {
      const folder = await fixtureFolder(name);
      let manySteps = 0;
      const compare = async ({ device, policy: zigzag }: Case) => {
        const policy: Policy = { ...zigzag, schedule: 'diagonal' };
        const engine = await Engine.open(engineOptions(folder, sequences, onDevice(device, policy, workload)));
        let numSteps = 0;
        const result = await engine.run(sequences, { onStep: () => void numSteps++ }).finally(() => engine.close());
        const simulated = simulateDiagonal({ shape: policy, device }, workload, realiseSlots(policy, device));
        expect(simulated.numSteps).toBe(numSteps);
        if (result.numBlocks === 1 && numSteps > 60) manySteps++;
        const estimated = estimate(folder.model, machine(device), workload, policy, { realised: true });
        for (const link of LINKS) {
          const measured = sumOver(result.trafficBytes, link);
          // That the job has ended is known when two layers have been loaded for another step.
          const slack =
            0.01 * measured + (link === 'gpuToCpu' || link === 'cpuToDisk' ? 0 : 2) * layerBytes(folder.model, bits);
          expect(Math.abs(sumOver(estimated.trafficBytes, link) - measured)).toBeLessThanOrEqual(slack);
        }
      };
      await fc.assert(fc.asyncProperty(arbitraryCase({ weightBits: bits, kvCacheBits: bits }), compare), {
        numRuns: 6,
        examples: [
          [{ ...ATTENDED_ON_CPU, policy: { ...ATTENDED_ON_CPU.policy, weightBits: bits, kvCacheBits: bits } }],
        ],
      });
      expect(manySteps).toBeGreaterThan(1);
    },
    240_000,
  );
});

describe('diagonal', () => {
  const spread = Array.from({ length: 96 }, (_, n) => ({
    promptTokens: 1 + ((n * 7) % 24),
    genTokens: 8 + ((n * 53) % 121),
  }));
  const policy = (changes: Partial<Policy> = {}): Policy => ({
    gpuBatchSize: 8,
    numGpuBatches: 2,
    placement: {
      weights: { gpu: 0, cpu: 1, disk: 0 },
      kvCache: { gpu: 1, cpu: 0, disk: 0 },
      activations: { gpu: 1, cpu: 0, disk: 0 },
    },
    ...{ weightBits: 16, kvCacheBits: 16, quantGroupSize: 64, cpuAttentionFraction: 0, overlap: true },
    ...changes,
  });
  const estimated = (changes: Partial<Policy>, lengths = spread) =>
    estimate(gatedModel, machine(), workloadFromSequences(lengths), policy(changes), { realised: true });

  it('loads weights as often as there are steps, and much less often than zig-zag', () => {
    const { numSteps, visits } = simulateDiagonal(
      { shape: policy(), device: 'cuda' },
      workloadFromSequences(spread),
      realiseSlots(policy(), 'cuda'),
    );
    const zigzagSteps = [0, 1, 2, 3, 4, 5].reduce(
      (sum, b) => sum + Math.max(...spread.slice(16 * b, 16 * b + 16).map(({ genTokens }) => genTokens)),
      0,
    );
    const loaded = (changes: Partial<Policy>) => sumOver(estimated(changes).trafficBytes, 'cpuToGpu');
    expect(visits.map(({ length }) => length)).toEqual(spread);
    expect(loaded({ schedule: 'diagonal' }) / loaded({})).toBeCloseTo(numSteps / zigzagSteps, 2);
    expect(numSteps).toBeLessThan(zigzagSteps / 1.4);
    expect(estimated({ schedule: 'diagonal' }).totalSeconds).toBeLessThan(estimated({}).totalSeconds / 1.3);
  });

  it('is zig-zag where everybody fits into one block', () => {
    const few = Array.from({ length: 8 }, () => ({ promptTokens: 63, genTokens: 2 }));
    const zigzag = estimated({}, few);
    const diagonal = estimated({ schedule: 'diagonal' }, few);
    expect(diagonal.trafficBytes).toEqual(zigzag.trafficBytes);
    expect(diagonal.totalSeconds).toBeCloseTo(zigzag.totalSeconds, 12);
    expect(diagonal.peakBytes).toEqual(zigzag.peakBytes);
  });

  it('never takes more memory than zig-zag and a page on each tier', () => {
    const pageBytes = 64 * gatedModel.numLayers * 2 * gatedModel.numKvHeads * gatedModel.headDim * 4;
    const zigzag = estimated({});
    const diagonal = estimated({ schedule: 'diagonal' });
    for (const tier of ['gpu', 'cpu', 'disk'] as const)
      expect(diagonal.peakBytes[tier]).toBeLessThanOrEqual(zigzag.peakBytes[tier] + pageBytes);
  });
});
