import { describe, expect, it } from 'vitest';
import { kvRowSeconds } from '../../src/cost-model/compute.js';
import { expertLoad, narrowness, secondsPerElement } from '../../src/cost-model/launch-seconds.js';
import { estimate } from '../../src/cost-model/estimate.js';
import { workloadFromNumbers } from '../../src/workload/blocks.js';
import { gatedModel, mixtureModel, slidingModel, tinyModel } from './examples.js';
import { machine, quantity } from './machines.js';

const onGpu = { gpu: 1, cpu: 0, disk: 0 };
const allOnGpu = {
  gpuBatchSize: 4,
  numGpuBatches: 2,
  placement: { weights: onGpu, kvCache: onGpu, activations: onGpu },
  weightBits: 16,
  kvCacheBits: 16,
  quantGroupSize: 64,
  cpuAttentionFraction: 0,
  overlap: true,
} as const;

describe('secondsPerElement', () => {
  const points = [
    { tokens: 4, flopsPerSecond: quantity(8) },
    { tokens: 8, flopsPerSecond: quantity(8) },
    { tokens: 16, flopsPerSecond: quantity(32) },
  ];

  it('is the time of the points at the points', () => {
    expect(points.map(({ tokens }) => secondsPerElement(points, tokens))).toEqual([1, 2, 1]);
  });

  it('is linear in tokens between them', () => {
    expect(secondsPerElement(points, 6)).toBe(1.5);
    expect(secondsPerElement(points, 14)).toBe(1.25);
  });

  it('goes to the origin below the first and keeps the last rate above', () => {
    expect(secondsPerElement(points, 2)).toBe(0.5);
    expect(secondsPerElement(points, 32)).toBe(2);
  });
});

describe('narrowness', () => {
  const points = (rate: number) => [1, 64].map((tokens) => ({ tokens, flopsPerSecond: quantity(rate * tokens) }));
  const rates = {
    ...machine().compute.cpu,
    matmul: points(4),
    narrowMatmul: { rows: 128, wideRows: 2048, points: points(1) },
  };

  it('is what was measured at the measured rows, and a power of the rows between', () => {
    expect([4096, 2048, 128].map((rows) => narrowness(rates, rows, 8))).toEqual([1, 1, 4]);
    expect(narrowness(rates, 512, 8)).toBeCloseTo(2, 12);
  });

  it('grows no more below, is never less than 1, and is 1 where nothing was measured', () => {
    expect(narrowness(rates, 16, 8)).toBe(4);
    expect(
      narrowness(
        { ...rates, matmul: points(1), narrowMatmul: { rows: 128, wideRows: 2048, points: points(4) } },
        128,
        8,
      ),
    ).toBe(1);
    expect(narrowness(machine().compute.cpu, 128, 8)).toBe(1);
  });

  it('counts the rows of all matrices of a launch: q, k and v, gate and up', () => {
    const hardware = machine();
    const narrow = { rows: 1, points: [{ tokens: 1, flopsPerSecond: quantity(1e9) }] };
    const gpu = { ...hardware.compute.gpu!, memoryBytesPerSecond: quantity(1e15), launchSeconds: quantity(0) };
    const prefill = (withNarrow: object) =>
      estimate(
        gatedModel,
        { ...hardware, compute: { ...hardware.compute, gpu: { ...gpu, matmul: narrow.points, ...withNarrow } } },
        workloadFromNumbers(8, 1),
        allOnGpu,
      ).stageSeconds.prefill.compute;
    const slow = { rows: 1, wideRows: 2048, points: [{ tokens: 1, flopsPerSecond: quantity(0.5e9) }] };
    const { hiddenSize, ffnSize, numHeads, numKvHeads, headDim, numLayers, vocabSize } = gatedModel;
    const qSize = numHeads * headDim;
    const added = (rows: number, cols: number) =>
      rows * cols * 2e-9 * 32 * (2 ** (Math.log(2048 / Math.min(rows, 2048)) / Math.log(2048)) - 1);
    const layer =
      added(qSize + 2 * numKvHeads * headDim, hiddenSize) +
      added(hiddenSize, qSize) +
      added(2 * ffnSize, hiddenSize) +
      added(hiddenSize, ffnSize);
    const expected = 2 * (numLayers * layer + added(vocabSize, hiddenSize) / 8);
    expect((prefill({ narrowMatmul: slow }) - prefill({})) / expected).toBeCloseTo(1, 6);
  });
});

describe('expertLoad', () => {
  it('is the whole MLP without experts', () => {
    expect(expertLoad(tinyModel, 7)).toEqual({ touched: 1, tokens: 7 });
  });

  it('touches what one token chooses, and all with many tokens', () => {
    expect(expertLoad(mixtureModel, 1)).toEqual({ touched: 2, tokens: 1 });
    const { touched, tokens } = expertLoad(mixtureModel, 1000);
    expect(touched).toBeCloseTo(4, 9);
    expect(tokens).toBeCloseTo(500, 6);
  });

  it('hands out every token to as many experts as it chooses', () => {
    for (const batch of [1, 2, 3, 10, 77]) {
      const { touched, tokens } = expertLoad(mixtureModel, batch);
      expect(touched * tokens).toBeCloseTo(2 * batch, 9);
    }
  });
});

describe('kvRowSeconds', () => {
  const { gpu: rates } = machine().compute;

  it('reads K and V', () => {
    expect(kvRowSeconds(tinyModel, rates!, 16)).toBeCloseTo((2 * 8 * 2) / 80e9, 20);
  });

  it('computes where many query heads share a KV head', () => {
    const grouped = { ...gatedModel, numHeads: 64, numKvHeads: 1 };
    expect(kvRowSeconds(grouped, rates!, 16)).toBeCloseTo((4 * 64 * 16) / 100e9, 16);
  });

  it('prefers a measured 4-bit rate, and without one never takes widening for free', () => {
    const measured = { ...rates!, attentionDecode4BitBytesPerSecond: quantity(4e9) };
    expect(kvRowSeconds(gatedModel, measured, 4)).toBeCloseTo((2 * 2 * 36) / 4e9, 18);
    expect(kvRowSeconds(gatedModel, rates!, 4)).toBeGreaterThan(kvRowSeconds(gatedModel, rates!, 16));
  });
});

describe('compute seconds', () => {
  it('by hand: everything on the GPU, one sequence, prefill', () => {
    const free = machine();
    const hardware = {
      ...free,
      taskSeconds: quantity(0),
      compute: {
        ...free.compute,
        gpu: { ...free.compute.gpu!, memoryBytesPerSecond: quantity(1e30), launchSeconds: quantity(0) },
      },
    };
    const policy = { ...allOnGpu, gpuBatchSize: 1, numGpuBatches: 1 };
    const { prefillSeconds, stageSeconds } = estimate(tinyModel, hardware, workloadFromNumbers(64, 1, 1), policy);
    const decoderWeights = 4 * 64 + 2 * 256;
    const matmul = (2 * 2 * 64 * decoderWeights) / 640e9;
    const attention = (2 * 4 * 8 * ((64 * 65) / 2)) / 100e9;
    const head = (50 * 8 * 2) / 20e9; // one token: 2 FLOPs an element at the first point's rate
    expect(stageSeconds.prefill.compute).toBeCloseTo(matmul + attention + head, 15);
    expect(prefillSeconds).toBeCloseTo(matmul + attention + head, 15);
  });

  it('never reads 32-bit weights faster than memory gives them', () => {
    const hardware = machine();
    const workload = workloadFromNumbers(1, 2, 1);
    const policy = { ...allOnGpu, gpuBatchSize: 1, numGpuBatches: 1 };
    const { stageSeconds } = estimate(gatedModel, hardware, workload, policy);
    const weights = 3 * (64 * 64 * 2 + 2 * 32 * 64 + 3 * 96 * 64) + 100 * 64;
    expect(stageSeconds.decode.compute).toBeGreaterThan((4 * weights) / 200e9);
  });

  it('attends to no more than the window, but keeps all rows', () => {
    const workload = workloadFromNumbers(100, 10);
    const full = estimate(gatedModel, machine(), workload, allOnGpu);
    const sliding = estimate(slidingModel, machine(), workload, allOnGpu);
    expect(sliding.decodeSeconds).toBeLessThan(full.decodeSeconds);
    expect(sliding.peakBytes).toEqual(full.peakBytes);
  });

  it('computes with the experts that are chosen, and loads them all', () => {
    const onCpu = { gpu: 0, cpu: 1, disk: 0 };
    const policy = { ...allOnGpu, placement: { ...allOnGpu.placement, weights: onCpu } };
    const workload = workloadFromNumbers(100, 2);
    const dense = { ...mixtureModel, experts: { count: 4, activePerToken: 4, normalizeTopK: true } };
    const chosen = estimate(mixtureModel, machine(), workload, policy);
    const all = estimate(dense, machine(), workload, policy);
    expect(chosen.stageSeconds.prefill.compute).toBeLessThan(all.stageSeconds.prefill.compute);
    expect(chosen.trafficBytes).toEqual(all.trafficBytes);
  });

  it('pays for widening 4-bit weights where no 4-bit rate was measured', () => {
    const workload = workloadFromNumbers(100, 10);
    const packed = estimate(gatedModel, machine(), workload, { ...allOnGpu, weightBits: 4 });
    const plain = estimate(gatedModel, machine(), workload, allOnGpu);
    expect(packed.stageSeconds.prefill.compute).toBeGreaterThan(plain.stageSeconds.prefill.compute);
  });
});
