/**
 * FlexGen's published policies (its bench_suite.py; at 1024 tokens, where none is published, with half the batch of
 * 512) against plans.
 */
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { estimate } from '../../src/cost-model/estimate.js';
import { checkHardwareProfile } from '../../src/hardware/check-profile.js';
import { findModel } from '../../src/models/registry.js';
import { policyFromPercent } from '../../src/policy/check-policy.js';
import { createGlpkSolver } from '../../src/solver/glpk.js';
import { optimize } from '../../src/solver/optimize.js';
import { workloadFromNumbers } from '../../src/workload/blocks.js';

const t4 = checkHardwareProfile(JSON.parse(readFileSync('hardware-profiles/t4.json', 'utf8')));
const surroundings = { solver: createGlpkSolver() };

interface Published {
  readonly model: string;
  /** [gpuBatchSize, numGpuBatches] for 256, 512 and 1024 prompt tokens. */
  readonly shapes: readonly (readonly [number, number])[];
  readonly percent: readonly number[];
  readonly cpuAttention: 0 | 1;
  readonly weightBits: 16 | 4;
  readonly kvCacheBits: 16 | 4;
}

const exact = { weightBits: 16, kvCacheBits: 16 } as const;
const packed = { weightBits: 4, kvCacheBits: 4 } as const;
const ON_GPU = [100, 0, 100, 0, 100, 0];
const ON_CPU = [0, 100, 0, 100, 0, 100];
// prettier-ignore
const PUBLISHED: readonly Published[] = [
  { model: 'facebook/opt-6.7b', shapes: [[4, 1], [2, 1], [1, 1]], percent: ON_GPU, cpuAttention: 0, ...exact },
  { model: 'facebook/opt-6.7b', shapes: [[128, 1], [72, 1], [36, 1]], percent: ON_GPU, cpuAttention: 0, ...packed },
  { model: 'facebook/opt-30b', shapes: [[160, 2], [48, 3], [24, 3]], percent: [20, 80, 0, 100, 0, 100], cpuAttention: 1, ...exact },
  { model: 'facebook/opt-30b', shapes: [[128, 8], [64, 8], [32, 8]], percent: ON_CPU, cpuAttention: 0, weightBits: 16, kvCacheBits: 4 },
  { model: 'facebook/opt-175b', shapes: [[64, 8], [32, 8], [16, 8]], percent: [0, 50, 0, 0, 0, 100], cpuAttention: 1, ...exact },
  { model: 'facebook/opt-175b', shapes: [[96, 3], [48, 3], [24, 3]], percent: ON_CPU, cpuAttention: 0, ...packed },
];

const CASES = PUBLISHED.flatMap((published) =>
  [256, 512, 1024].map((promptTokens, i) => ({ ...published, promptTokens, shape: published.shapes[i]! })),
);

it.each(CASES)(
  'of $model at $promptTokens tokens, $weightBits/$kvCacheBits bits, is not better than the plan',
  async ({ model: name, promptTokens, shape: [gpuBatchSize, numGpuBatches], percent, cpuAttention, ...bits }) => {
    const model = findModel(name);
    const workload = workloadFromNumbers(promptTokens, 32);
    const { weightBits, kvCacheBits } = bits;
    const policy = policyFromPercent(percent, {
      ...{ gpuBatchSize, numGpuBatches, weightBits, kvCacheBits, quantGroupSize: 64, overlap: true },
      cpuAttentionFraction: cpuAttention,
      diskKvCpuAttentionFraction: cpuAttention,
    });
    const published = estimate(model, t4, workload, policy);
    const open = weightBits === 4 || kvCacheBits === 4 ? ('auto' as const) : 16;
    const result = await optimize(model, t4, workload, { weightBits: open, kvCacheBits: open }, surroundings);
    if (result.status !== 'optimal') throw new Error('expected a plan');
    const { estimate: planned, policy: chosen } = result.plan;
    expect(planned.genTokensPerSecond).toBeGreaterThanOrEqual(published.genTokensPerSecond);
    expect(planned.fits).toEqual({ gpu: true, cpu: true, disk: true });
    expect(chosen.gpuBatchSize).toBeGreaterThan(1);
  },
);
