import { describe, expect, it } from 'vitest';
import { estimate } from '../../src/cost-model/estimate.js';
import { realise } from '../../src/policy/realisation.js';
import { MIB } from '../../src/units.js';
import { workloadFromNumbers } from '../../src/workload/blocks.js';
import { tinyModel } from './examples.js';
import { machine, quantity } from './machines.js';

const PAGE = 4096;

const policy = {
  gpuBatchSize: 4,
  numGpuBatches: 2,
  placement: {
    weights: { gpu: 0.5, cpu: 0.25, disk: 0.25 },
    kvCache: { gpu: 0.25, cpu: 0.5, disk: 0.25 },
    activations: { gpu: 0, cpu: 1, disk: 0 },
  },
  weightBits: 16,
  kvCacheBits: 16,
  quantGroupSize: 64,
  cpuAttentionFraction: 0.5,
  overlap: true,
} as const;

/** Rounding of buffers to cache lines (pages on cpu) and of homes, layer by layer. */
const GPU_SLACK = 64 * (8 + 4 + 1);
const CPU_SLACK = PAGE * 8 + 64 * 5;

describe('peak bytes', () => {
  const workload = workloadFromNumbers(10, 6);
  const { peakBytes } = estimate(tinyModel, machine(), workload, policy, { realised: true });
  const { weights, bytes } = realise(tinyModel, policy, workload, 'cuda');
  const kvRow = 2 * 8 * 2;
  const reserved = 10 + 6 - 1;

  const rowsBytes = (kind: 'decoder' | 'head', counts: (rows: { gpu: number; cpu: number; disk: number }) => number) =>
    weights[kind]
      .filter(({ cols }) => cols > 1)
      .reduce((sum, { rows, cols, gpuRows, cpuRows }) => {
        return sum + 2 * cols * counts({ gpu: gpuRows, cpu: cpuRows, disk: rows - gpuRows - cpuRows });
      }, 0);
  const streamed = Math.max(
    ...(['decoder', 'head'] as const).map((kind) => rowsBytes(kind, ({ cpu, disk }) => cpu + disk)),
  );

  it('on the GPU, by hand', () => {
    const weightBuffers = 2 * streamed;
    const kvHome = 2 * 2 * kvRow * reserved; // one slot of each batch, two layers
    const kvStaging = Math.max(2 * 3 * 10 * kvRow, 3 * (2 * reserved * kvRow + kvRow)); // per batch: 3 away; 2 moved, 1 attended
    const activationBuffers = 3 * 4 * 10 * 16;
    const workspace = 4 * (40 * (2 * 8 + (2 * 2 + 2 * 2) * 4 + 32) + 4 * 50);
    const sharedPrefixes = 2 * 10 * kvRow; // of two prompts
    const cuda = 72 * MIB + 2 * 40 * 64; // inputs of 32 columns at most, padded to 64
    const taken = [weightBuffers, kvHome, kvStaging, activationBuffers, workspace, sharedPrefixes, cuda];
    const exact = taken.reduce((sum, part) => sum + part, bytes.weights.gpu);
    expect(peakBytes.gpu).toBeGreaterThanOrEqual(exact);
    expect(peakBytes.gpu).toBeLessThanOrEqual(exact + GPU_SLACK);
  });

  it('in RAM, by hand', () => {
    const diskMatrices = (kind: 'decoder' | 'head') =>
      weights[kind].filter(({ cols, rows, gpuRows, cpuRows }) => cols > 1 && rows > gpuRows + cpuRows).length;
    const diskStaging =
      2 *
      Math.max(
        ...(['decoder', 'head'] as const).map(
          (kind) => rowsBytes(kind, ({ disk }) => disk) + 2 * PAGE * diskMatrices(kind),
        ),
      );
    const embeddingRows = 64 * (PAGE + PAGE); // tied head and positions have disk rows
    const kvHome = 4 * 2 * kvRow * reserved;
    const kvDiskStaging = 3 * PAGE; // one disk slot a batch
    const activations = 8 * 10 * 16;
    const cpuAttention = 4 * 4 * 2 * 8;
    const cuda = 12 * MIB + 4 * 4 * 50; // logits
    const exact =
      bytes.weights.cpu + diskStaging + embeddingRows + kvHome + kvDiskStaging + activations + cpuAttention + cuda;
    expect(peakBytes.cpu).toBeGreaterThanOrEqual(exact);
    expect(peakBytes.cpu).toBeLessThanOrEqual(exact + CPU_SLACK);
  });

  it('on disk, by hand: a sequence takes whole pages in each layer', () => {
    expect(peakBytes.disk).toBe(bytes.weights.disk + 2 * 2 * PAGE);
  });

  it('while loading: chunks of the largest tensor and what they become', () => {
    const bare = { ...policy, gpuBatchSize: 1, numGpuBatches: 1, placement: allOnGpu() };
    const loaded = estimate(tinyModel, machine(), workloadFromNumbers(1, 1), bare, { realised: true });
    const largest = 64 * 8 * 2; // positions
    const staging = 3 * PAGE + 2 * largest;
    expect(loaded.peakBytes.cpu).toBeGreaterThanOrEqual(staging);
    const packed = estimate(
      tinyModel,
      machine(),
      workloadFromNumbers(1, 1),
      { ...bare, weightBits: 4 },
      { realised: true },
    );
    expect(packed.peakBytes.cpu).toBeGreaterThan(staging + 2 * PAGE);
  });

  it('says of each tier whether it holds', () => {
    const memory = { ...machine().memory, gpuBytes: quantity(100), cpuBytes: quantity(20e6) };
    const small = { ...machine(), memory };
    expect(estimate(tinyModel, small, workload, policy).fits).toEqual({ gpu: false, cpu: true, disk: true });
  });
});

function allOnGpu() {
  const onGpu = { gpu: 1, cpu: 0, disk: 0 };
  return { weights: onGpu, kvCache: onGpu, activations: onGpu };
}
