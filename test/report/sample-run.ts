/** A run on the emulated device, with round numbers so that tests can compute by hand. */
import type { Estimate, LinkBytes, StageSeconds } from '../../src/cost-model/estimate-types.js';
import type { RunDocument } from '../../src/report/run-document.js';

function stages(compute: number, cpuAttention: number, cpuToGpu: number, diskToCpu: number): StageSeconds {
  return { compute, cpuAttention, cpuToGpu, gpuToCpu: 0.01, diskToCpu, cpuToDisk: 0 };
}

function links(cpuToGpu: number, diskToCpu: number): LinkBytes {
  return { cpuToGpu, gpuToCpu: 1_000_000, diskToCpu, cpuToDisk: 0 };
}

const samplePrediction: Estimate = {
  prefillSeconds: 0.5,
  decodeSeconds: 1.5,
  totalSeconds: 2,
  genTokensPerSecond: 512,
  bottleneck: { prefill: 'compute', decode: 'cpuToGpu' },
  stageSeconds: { prefill: stages(0.4, 0, 0.2, 0.1), decode: stages(0.6, 0.1, 1.4, 0.3) },
  trafficBytes: { prefill: links(10_000_000, 2_000_000), decode: links(150_000_000, 30_000_000) },
  peakBytes: { gpu: 3_900_000, cpu: 9_000_000, disk: 2_000_000 },
  fits: { gpu: true, cpu: true, disk: true },
};

export const sampleRun: RunDocument = {
  schemaVersion: 1,
  source: 'measured',
  device: 'emulated',
  plan: {
    model: { name: 'opt-kjv-5m' },
    hardware: { name: 'bench <emulated>' },
    workload: { promptTokens: 48, genTokens: 16, numSequences: 64 },
    policy: {
      gpuBatchSize: 16,
      numGpuBatches: 4,
      placement: {
        weights: { gpu: 0.25, cpu: 0.5, disk: 0.25 },
        kvCache: { gpu: 0, cpu: 1, disk: 0 },
        activations: { gpu: 1, cpu: 0, disk: 0 },
      },
      weightBits: 16,
      kvCacheBits: 16,
      quantGroupSize: 64,
      cpuAttentionFraction: 1,
      overlap: true,
    },
  },
  numSequences: 64,
  promptTokens: 2000,
  genTokens: 1024,
  numBlocks: 1,
  prefillSeconds: 0.4,
  decodeSeconds: 1.6,
  totalSeconds: 2,
  genTokensPerSecond: 512,
  stageSeconds: { prefill: stages(0.35, 0, 0.2, 0.1), decode: stages(0.5, 0.12, 1.5, 0.25) },
  trafficBytes: { prefill: links(10_000_000, 2_000_000), decode: links(150_000_000, 30_000_000) },
  peakBytes: { gpu: 3_800_000, cpu: 8_000_000, disk: 2_000_000 },
  capacityBytes: { gpu: 4 * 2 ** 20, cpu: 12 * 2 ** 20, disk: 2 ** 30 },
  placedBytes: {
    weights: { gpu: 2_700_000, cpu: 5_400_000, disk: 2_700_000 },
    kvCache: { gpu: 0, cpu: 3_000_000, disk: 0 },
    activations: { gpu: 500_000, cpu: 0, disk: 0 },
  },
  predicted: samplePrediction,
  error: { prefillSeconds: 0.25, decodeSeconds: -0.0625, totalSeconds: 0, genTokensPerSecond: 0 },
  environment: { cpuName: 'Example CPU', isa: 'avx2', numThreads: 2, node: 'v20.20.2', date: '2026-11-22T12:00:00Z' },
};
