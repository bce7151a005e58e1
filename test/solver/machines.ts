/** Machines and models of a size at which a test can solve hundreds of jobs, and a little of everything binds. */
import fc from 'fast-check';
import type { ComputeRates, HardwareProfile, Quantity } from '../../src/hardware/hardware-profile.js';
import { parameterCount } from '../../src/models/tensors.js';
import type { ModelConfig } from '../../src/models/model-config.js';
import { MIB } from '../../src/units.js';
import { workloadFromNumbers } from '../../src/workload/blocks.js';
import type { Workload } from '../../src/workload/workload.js';
import { gatedModel, mixtureModel, tinyModel } from '../cost-model/examples.js';

const wide = { hiddenSize: 256, headDim: 32, numHeads: 8, vocabSize: 2000, maxPositions: 512, embeddingSize: 256 };
export const optLike: ModelConfig = { ...tinyModel, ...wide, name: 'opt-like', numKvHeads: 8, ffnSize: 1024 };
const llamaLike: ModelConfig = { ...gatedModel, ...wide, name: 'llama-like', numKvHeads: 2, ffnSize: 640 };
const mixtureLike: ModelConfig = { ...mixtureModel, ...wide, name: 'mixture-like', numKvHeads: 4, ffnSize: 256 };
const testModels: readonly ModelConfig[] = [optLike, llamaLike, mixtureLike];

const set = (value: number): Quantity => ({ value, source: 'set' });

export interface MachineNumbers {
  readonly device: HardwareProfile['device'];
  readonly gpuBytes: number;
  readonly cpuBytes: number;
  readonly diskBytes: number;
  readonly cpuToGpu: number;
  readonly gpuToCpu: number;
  readonly diskToCpu: number;
  readonly cpuToDisk: number;
  readonly gpuFlopsPerSecond: number;
  readonly cpuFlopsPerSecond: number;
}

function rates(flopsPerSecond: number, bytesPerSecond: number): ComputeRates {
  return {
    matmul: [
      { tokens: 1, flopsPerSecond: set(flopsPerSecond / 50) },
      { tokens: 64, flopsPerSecond: set(flopsPerSecond / 2) },
      { tokens: 512, flopsPerSecond: set(flopsPerSecond) },
    ],
    memoryBytesPerSecond: set(bytesPerSecond),
    attentionPrefillFlopsPerSecond: set(flopsPerSecond / 3),
    attentionDecodeBytesPerSecond: set(bytesPerSecond / 2),
    launchSeconds: set(2e-6),
  };
}

const link = (bytesPerSecond: number) => ({ bytesPerSecond: set(bytesPerSecond), latencySeconds: set(5e-6) });

export function machine(numbers: MachineNumbers): HardwareProfile {
  const { device, gpuBytes, cpuBytes, diskBytes } = numbers;
  const hasGpu = device !== 'cpu';
  return {
    schemaVersion: 1,
    name: 'test machine',
    device,
    memory: {
      ...(hasGpu && { gpuBytes: set(gpuBytes) }),
      cpuBytes: set(cpuBytes),
      diskBytes: set(diskBytes),
    },
    links: {
      ...(hasGpu && { cpuToGpu: link(numbers.cpuToGpu), gpuToCpu: link(numbers.gpuToCpu) }),
      diskToCpu: link(numbers.diskToCpu),
      cpuToDisk: link(numbers.cpuToDisk),
    },
    compute: {
      ...(hasGpu && { gpu: rates(numbers.gpuFlopsPerSecond, numbers.gpuFlopsPerSecond / 60) }),
      cpu: rates(numbers.cpuFlopsPerSecond, numbers.cpuFlopsPerSecond / 20),
    },
    taskSeconds: set(5e-6),
  };
}

/** A round machine on which the job of `smallJob` must use all three tiers. */
export const smallMachine: HardwareProfile = machine({
  device: 'emulated',
  gpuBytes: 4e6,
  cpuBytes: 6e6,
  diskBytes: 1e9,
  cpuToGpu: 1e9,
  gpuToCpu: 1e9,
  diskToCpu: 2e8,
  cpuToDisk: 1e8,
  gpuFlopsPerSecond: 2e11,
  cpuFlopsPerSecond: 2e10,
});
export const smallJob: Workload = workloadFromNumbers(24, 8, 40);

/** 10^low to 10^high, evenly on the logarithmic scale. */
const logarithmic = (low: number, high: number): fc.Arbitrary<number> =>
  fc.integer({ min: Math.round(100 * low), max: Math.round(100 * high) }).map((hundredths) => 10 ** (hundredths / 100));

/**
 * Room for what a CUDA device takes whatever the model (docs/schedule.md, "Buffers"), and a little for its inputs and
 * logits.
 */
const withCudaParts = (numbers: MachineNumbers): MachineNumbers =>
  numbers.device === 'cuda'
    ? { ...numbers, gpuBytes: numbers.gpuBytes + 76 * MIB, cpuBytes: numbers.cpuBytes + 14 * MIB }
    : numbers;

/** Capacities around the size of the model, rates over two or three orders of magnitude. */
const anyMachine = (model: ModelConfig): fc.Arbitrary<HardwareProfile> => {
  const modelBytes = 4 * parameterCount(model);
  const capacity = (low: number, high: number) => logarithmic(low, high).map((part) => Math.round(part * modelBytes));
  return fc
    .record({
      device: fc.constantFrom('cuda', 'cuda', 'emulated', 'cpu'),
      gpuBytes: capacity(-0.5, 0.7),
      cpuBytes: capacity(-0.5, 1),
      diskBytes: fc.oneof(fc.constant(0), capacity(-0.5, 2)),
      cpuToGpu: logarithmic(8, 10.5),
      gpuToCpu: logarithmic(8, 10.5),
      diskToCpu: logarithmic(7, 9.5),
      cpuToDisk: logarithmic(7, 9.5),
      gpuFlopsPerSecond: logarithmic(10, 13),
      cpuFlopsPerSecond: logarithmic(9, 11.5),
    })
    .map((numbers) => machine(withCudaParts(numbers)));
};

const anyJob: fc.Arbitrary<Workload> = fc
  .tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 30 }))
  .map(([promptTokens, genTokens, numSequences]) => workloadFromNumbers(promptTokens, genTokens, numSequences));

export interface Case {
  readonly model: ModelConfig;
  readonly hardware: HardwareProfile;
  readonly workload: Workload;
}

export const anyCase: fc.Arbitrary<Case> = fc
  .constantFrom(...testModels)
  .chain((model) => fc.record({ model: fc.constant(model), hardware: anyMachine(model), workload: anyJob }));
