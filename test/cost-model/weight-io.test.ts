import { describe, expect, it } from 'vitest';
import * as bounds from '../../src/cost-model/io-bounds.js';
import { findModel } from '../../src/models/registry.js';
import type { Policy } from '../../src/policy/policy.js';

describe('weightIoAgainstLowerBound', () => {
  const model = findModel('facebook/opt-175b');
  const workload = { promptTokens: 512, genTokens: 32 };
  const policy = { gpuBatchSize: 32, numGpuBatches: 8, weightBits: 16, kvCacheBits: 16 } as Policy;
  const shape = {
    numLayers: 96,
    ...workload,
    kvTokenBytes: 4 * model.hiddenSize,
    hiddenTokenBytes: 2 * model.hiddenSize,
  };
  // 175e9 parameters less vectors, in 16 bits, and room for exactly one block of 256 sequences.
  const matrices = 96 * 12 * 12288 ** 2 + (50272 + 2050) * 12288;
  const vectors = 96 * 13 * 12288 + 2 * 12288;
  const weightBytes = 2 * matrices + 4 * vectors;
  const exactFit = { gpu: 15e9, cpu: 200e9, disk: weightBytes + 256 * bounds.peakSequenceBytes(shape) - 215e9 };

  it('is the printed gap when the block fills the capacity', () => {
    const { ratio, weightLoads } = bounds.weightIoAgainstLowerBound(model, policy, workload, exactFit);
    expect(weightLoads).toBe(96 * 32);
    expect(ratio).toBeCloseTo(bounds.peakSequenceBytes(shape) / bounds.meanSequenceBytes(shape), 9);
  });

  it('never reports better than the bound, and counts the short last block', () => {
    const counted = bounds.weightIoAgainstLowerBound(model, policy, { ...workload, numSequences: 300 }, exactFit);
    expect(counted.weightLoads).toBe(2 * 96 * 32);
    expect(counted.ratio).toBeGreaterThanOrEqual(1);
    const alike = Array.from({ length: 300 }, () => workload);
    expect(bounds.weightIoAgainstLowerBound(model, policy, { ...workload, sequences: alike }, exactFit)).toEqual(
      counted,
    );
  });

  it('says when the weights alone do not fit', () => {
    const memory = { gpu: 15e9, cpu: 200e9, disk: 0 };
    expect(() => bounds.weightIoAgainstLowerBound(model, policy, workload, memory)).toThrow('too little on all tiers');
  });

  it('takes the longest sequence of each block, and the bytes of every one', () => {
    const sequences = [
      { promptTokens: 512, genTokens: 32 },
      { promptTokens: 64, genTokens: 8 },
    ];
    const single = { ...policy, gpuBatchSize: 1, numGpuBatches: 1 } as Policy;
    const io = bounds.weightIoAgainstLowerBound(model, single, { ...workload, sequences }, exactFit);
    expect(io.weightLoads).toBe(96 * 40);
    expect(io.leastWeightLoads).toBe(96 * 32);
  });
});
