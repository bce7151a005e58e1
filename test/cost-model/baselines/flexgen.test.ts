import { describe, expect, it } from 'vitest';
import { estimateFlexGenPaper, flexGenPeakBytes } from '../../../src/cost-model/baselines/flexgen-paper.js';
import { estimateFlexGenReleased, RELEASED_T4_RATES } from '../../../src/cost-model/baselines/flexgen-released.js';
import { flexGenTerms, layerWeightBytes } from '../../../src/cost-model/baselines/flexgen-terms.js';
import { findModel } from '../../../src/models/registry.js';
import { policyFromPercent } from '../../../src/policy/check-policy.js';
import type { Policy } from '../../../src/policy/policy.js';
import { GIB } from '../../../src/units.js';
import { searchReleased } from './released-search.js';

const opt6b = findModel('facebook/opt-6.7b');
const opt30b = findModel('facebook/opt-30b');
const opt175b = findModel('facebook/opt-175b');
const S512 = { promptTokens: 512, genTokens: 32 };
const S256 = { promptTokens: 256, genTokens: 32 };
const S1024 = { promptTokens: 1024, genTokens: 32 };

function policy(gpuBatchSize: number, numGpuBatches: number, ...percent: number[]): Policy {
  return policyFromPercent(percent, {
    gpuBatchSize,
    numGpuBatches,
    weightBits: 16,
    kvCacheBits: 16,
    quantGroupSize: 64,
    cpuAttentionFraction: 1,
    overlap: true,
  });
}

const POLICY_30B = policy(48, 3, 20, 80, 0, 100, 0, 100);
const POLICY_175B = policy(32, 8, 0, 50, 0, 0, 0, 100);

/**
 * Byte and FLOP totals of the printed equations, worked out by hand for the paper's two policies at s = 512, n = 32.
 */
const ORACLE = [
  {
    model: opt30b,
    policy: POLICY_30B,
    layerBytes: 1_233_125_376,
    prefill: { cpuToGpu: 2_043_464_908.8, gpuToCpu: 3_175_022_592, diskToCpu: 0, cpuToDisk: 0 },
    decode: { cpuToGpu: 988_564_684.8, gpuToCpu: 2_064_384, diskToCpu: 0, cpuToDisk: 0 },
    prefillFlops: { matmul: 9.091586772e13, attention: 1.082331759e12 },
    decodeFlops: { matmul: 1.775700541e11, gpuAttention: 0, cpuAttention: 2.179989504e9 },
    peakGiB: {
      gpu: [11.025, 3.8063, 11.025, 2.1688],
      cpu: [145.4906, 1.2469, 144.5082, 0.0034],
      disk: 0,
    },
  },
  {
    model: opt175b,
    policy: POLICY_175B,
    layerBytes: 3_623_878_656,
    prefill: {
      cpuToGpu: 6_845_104_128,
      gpuToCpu: 9_676_259_328,
      diskToCpu: 1_811_939_328,
      cpuToDisk: 6_455_033_856,
    },
    decode: { cpuToGpu: 3_630_170_112, gpuToCpu: 6_291_456, diskToCpu: 8_455_716_864, cpuToDisk: 12_582_912 },
    prefillFlops: { matmul: 4.749890232e14, attention: 3.298534883e12 },
    decodeFlops: { matmul: 9.277129359e11, gpuAttention: 0, cpuAttention: 6.643777536e9 },
    peakGiB: { gpu: [0, 9.0, 0, 7.1287], cpu: [165.0, 3.75, 162.0059, 3.2851], disk: 774.0 },
  },
];

const total = (bytes: { weights: number; kvCache: number; activations: number }) =>
  bytes.weights + bytes.kvCache + bytes.activations;

describe.each(ORACLE)('the published equations for $model.name', (oracle) => {
  const terms = flexGenTerms(oracle.model, S512, oracle.policy);

  it('count the bytes on every link exactly', () => {
    expect(layerWeightBytes(oracle.model)).toBe(oracle.layerBytes);
    for (const phase of ['prefill', 'decode'] as const) {
      for (const link of ['cpuToGpu', 'gpuToCpu', 'diskToCpu', 'cpuToDisk'] as const) {
        expect(total(terms.linkBytes[phase][link])).toBeCloseTo(oracle[phase][link], 1);
      }
    }
  });

  it('count the FLOPs to all ten printed digits', () => {
    const digits = (value: number) => Number(value.toPrecision(10));
    expect(digits(terms.flops.prefill.matmul)).toBe(oracle.prefillFlops.matmul);
    expect(digits(terms.flops.prefill.attention)).toBe(oracle.prefillFlops.attention);
    expect(digits(terms.flops.decode.matmul)).toBe(oracle.decodeFlops.matmul);
    expect(digits(terms.flops.decode.gpuAttention)).toBe(oracle.decodeFlops.gpuAttention);
    expect(digits(terms.flops.decode.cpuAttention)).toBe(oracle.decodeFlops.cpuAttention);
  });

  it('sum the peak memory to the printed digits', () => {
    const { gpu, cpu, disk } = flexGenPeakBytes(oracle.model, S512, oracle.policy);
    const printed = ({ prefill, decode }: typeof gpu) =>
      [prefill.home, prefill.working, decode.home, decode.working].map((bytes) => Number((bytes / GIB).toFixed(4)));
    expect(printed(gpu)).toEqual(oracle.peakGiB.gpu);
    expect(printed(cpu)).toEqual(oracle.peakGiB.cpu);
    expect(Number((disk / GIB).toFixed(1))).toBe(oracle.peakGiB.disk);
  });
});

describe('the published estimate', () => {
  const rates = {
    linkBytesPerSecond: { cpuToGpu: 12e9, gpuToCpu: 12e9, diskToCpu: 2e9, cpuToDisk: 1e9 },
    matmulFlopsPerSecond: 20e12,
    gpuAttentionFlopsPerSecond: 1e12,
    cpuAttentionFlopsPerSecond: 0.02e12,
  };

  it('takes the slowest of the five stages in each phase', () => {
    const estimate = estimateFlexGenPaper(opt175b, S512, POLICY_175B, rates);
    const computeSeconds = 4.749890232e14 / 20e12 + 3.298534883e12 / 1e12;
    const diskSeconds = 8_455_716_864 / 2e9;
    expect(estimate.prefillSeconds).toBeCloseTo(96 * computeSeconds, 3);
    expect(estimate.decodeSeconds).toBeCloseTo(96 * 31 * diskSeconds, 3);
    expect(estimate.genTokensPerSecond).toBeCloseTo((256 * 32) / (96 * (computeSeconds + 31 * diskSeconds)), 9);
  });
});

/** What the released program prints (its memory limits relaxed): tokens per second. */
const RELEASED_POLICIES = [
  { name: '30B, 48x3, 20 80', model: opt30b, workload: S512, policy: POLICY_30B, tokensPerSecond: 7.14 },
  {
    name: '30B, 48x3, 0 100',
    model: opt30b,
    workload: S512,
    policy: policy(48, 3, 0, 100, 0, 100, 0, 100),
    tokensPerSecond: 6.85,
  },
  {
    name: '30B, 48x3, 8 92',
    model: opt30b,
    workload: S512,
    policy: policy(48, 3, 8, 92, 0, 100, 0, 100),
    tokensPerSecond: 6.96,
  },
  {
    name: '30B s=256, 160x2',
    model: opt30b,
    workload: S256,
    policy: policy(160, 2, 10, 90, 0, 100, 0, 100),
    tokensPerSecond: 12.97,
  },
  {
    name: '30B, DeepSpeed 8x1',
    model: opt30b,
    workload: S512,
    policy: policy(8, 1, 0, 100, 100, 0, 100, 0),
    tokensPerSecond: 1.71,
  },
  { name: '175B, 32x8', model: opt175b, workload: S512, policy: POLICY_175B, tokensPerSecond: 0.15 },
  {
    name: '175B, 32x1',
    model: opt175b,
    workload: S512,
    policy: policy(32, 1, 0, 50, 0, 0, 0, 100),
    tokensPerSecond: 0.06,
  },
  {
    name: '6.7B, 2x1 all GPU',
    model: opt6b,
    workload: S512,
    policy: policy(2, 1, 100, 0, 100, 0, 100, 0),
    tokensPerSecond: 60.85,
  },
];

describe('the released cost model', () => {
  it.each(RELEASED_POLICIES)('gives $tokensPerSecond tokens/s for $name', ({ model, workload, policy, ...row }) => {
    const { genTokensPerSecond } = estimateFlexGenReleased(model, workload, policy);
    expect(Number(genTokensPerSecond.toFixed(2))).toBe(row.tokensPerSecond);
  });

  it('gives the printed seconds of both phases for OPT-30B', () => {
    const { prefillSeconds, decodeSeconds } = estimateFlexGenReleased(opt30b, S512, POLICY_30B);
    expect(Number(prefillSeconds.toFixed(2))).toBe(210.67);
    expect(Number(decodeSeconds.toFixed(2))).toBe(435.09);
  });

  it.each([
    { diskGiBPerSecond: 1.6, tokensPerSecond: 0.46 },
    { diskGiBPerSecond: 2.0, tokensPerSecond: 0.55 },
    { diskGiBPerSecond: 3.0, tokensPerSecond: 0.75 },
  ])('gives $tokensPerSecond tokens/s for 175B on a disk of $diskGiBPerSecond GiB/s', (row) => {
    const rates = { ...RELEASED_T4_RATES, diskToCpuBytesPerSecond: row.diskGiBPerSecond * GIB };
    const { genTokensPerSecond } = estimateFlexGenReleased(opt175b, S512, POLICY_175B, rates);
    expect(Number(genTokensPerSecond.toFixed(2))).toBe(row.tokensPerSecond);
  });

  it.each([
    { name: '30B s=512', model: opt30b, workload: S512, shape: [32, 5], tokensPerSecond: 7.09 },
    { name: '30B s=256', model: opt30b, workload: S256, shape: [64, 5], tokensPerSecond: 13.04 },
    { name: '30B s=1024', model: opt30b, workload: S1024, shape: [8, 11], tokensPerSecond: 3.68 },
    { name: '175B s=512', model: opt175b, workload: S512, shape: [1, 432], tokensPerSecond: 0.17 },
  ])('searched as its program searches, finds $shape for $name', async ({ model, workload, ...row }) => {
    const found = await searchReleased(model, workload, { gpu: 16 * GIB, cpu: 200 * GIB, disk: 1500 * GIB });
    expect([found.policy.gpuBatchSize, found.policy.numGpuBatches]).toEqual(row.shape);
    expect(Number(found.genTokensPerSecond.toFixed(2))).toBe(row.tokensPerSecond);
  });

  it('searched, keeps 6.7B on the GPU; the batch shape is a tie there, for nothing in it penalises small batches', async () => {
    const found = await searchReleased(opt6b, S512, { gpu: 16 * GIB, cpu: 200 * GIB, disk: 1500 * GIB });
    expect(found.policy.placement.weights.gpu).toBeCloseTo(1, 9);
    expect(Number(found.genTokensPerSecond.toFixed(2))).toBe(60.85);
  });
});
