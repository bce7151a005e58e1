import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkPolicy, policyFromPercent } from '../../src/policy/check-policy.js';
import { anyPolicy } from '../cost-model/arbitraries.js';

const policy = {
  gpuBatchSize: 48,
  numGpuBatches: 3,
  placement: {
    weights: { gpu: 0.2, cpu: 0.8, disk: 0 },
    kvCache: { gpu: 0, cpu: 1, disk: 0 },
    activations: { gpu: 0, cpu: 1, disk: 0 },
  },
  weightBits: 16,
  kvCacheBits: 16,
  quantGroupSize: 64,
  cpuAttentionFraction: 1,
  overlap: true,
} as const;

describe('checkPolicy', () => {
  it('returns what it accepts, with or without schemaVersion', () => {
    expect(checkPolicy(policy)).toEqual(policy);
    expect(checkPolicy({ schemaVersion: 1, ...policy })).toEqual(policy);
    expect(checkPolicy({ ...policy, sparseValueFraction: 0.1 })).toEqual({ ...policy, sparseValueFraction: 0.1 });
  });

  it('accepts every policy of the planner after a trip through JSON', () => {
    fc.assert(
      fc.property(anyPolicy, (any) => {
        expect(checkPolicy(JSON.parse(JSON.stringify(any)))).toEqual(any);
      }),
    );
  });

  const withoutOverlap = { ...policy, overlap: undefined };
  it.each<[string, unknown]>([
    ['only known fields in the policy, got "gpuBatchsize"', { ...policy, gpuBatchsize: 4 }],
    ['field "overlap" in the policy, got none', JSON.parse(JSON.stringify(withoutOverlap))],
    ['field "weightBits" of the policy to be one of 16, 4, got 8', { ...policy, weightBits: 8 }],
    ['field "gpuBatchSize" of the policy to be of type integer, got 1.5', { ...policy, gpuBatchSize: 1.5 }],
    ['field "numGpuBatches" of the policy to be >= 1, got 0', { ...policy, numGpuBatches: 0 }],
    ['field "quantGroupSize" of the policy to be 64, got 32', { ...policy, quantGroupSize: 32 }],
    ['field "cpuAttentionFraction" of the policy to be <= 1, got 1.2', { ...policy, cpuAttentionFraction: 1.2 }],
    ['field "sparseValueFraction" of the policy to be > 0, got 0', { ...policy, sparseValueFraction: 0 }],
    ['field "sparseValueFraction" of the policy to be <= 1, got 2', { ...policy, sparseValueFraction: 2 }],
    ['only known fields in the policy, got "placement.weights.ssd"', spoiled({ gpu: 1, cpu: 0, disk: 0, ssd: 0 })],
    [
      'placement.weights to be fractions from 0 to 1 that sum to 1, got 0.5 + 0.2 + 0 = 0.7',
      spoiled({ gpu: 0.5, cpu: 0.2, disk: 0 }),
    ],
    ['the policy to be of type object, got [1]', [1]],
  ])('refuses: %s', (message, document) => {
    expect(() => checkPolicy(document)).toThrow(message);
  });
});

describe('policyFromPercent', () => {
  const { placement, ...rest } = policy;

  it('reads FlexGen`s six numbers and leaves the rest to disk', () => {
    expect(policyFromPercent([20, 80, 0, 100, 0, 100], rest).placement).toEqual(placement);
    expect(policyFromPercent([0, 50, 0, 0, 0, 100], rest).placement).toEqual({
      weights: { gpu: 0, cpu: 0.5, disk: 0.5 },
      kvCache: { gpu: 0, cpu: 0, disk: 1 },
      activations: { gpu: 0, cpu: 1, disk: 0 },
    });
  });

  it.each([
    [[20, 80, 0, 100], 'six percentages, got 4'],
    [[20, 90, 0, 100, 0, 100], 'percentages of weights from 0 to 100 that sum to at most 100, got 20 and 90'],
    [[20, 80, 0, 100, -1, 100], 'percentages of activations'],
    [[20, 80, NaN, 100, 0, 100], 'percentages of kvCache'],
  ])('refuses %j', (percent, message) => {
    expect(() => policyFromPercent(percent, rest)).toThrow(message);
  });
});

function spoiled(weights: object): unknown {
  return { ...policy, placement: { ...policy.placement, weights } };
}
