/** How much is measured: sizes and repetitions, quick and thorough, as data. */
import { KIB, MIB } from '../units.js';

export type ComputingDevice = 'cpu' | 'cuda';

export interface ComputeEffort {
  readonly memoryBytes: number;
  /** Tokens of a launch; the largest launches of a GPU are larger than a CPU's. */
  readonly matmulTokens: readonly number[];
  /** Points at which a matrix of few rows is measured. */
  readonly narrowMatmulTokens: readonly number[];
  /** Points at which 4-bit weights are measured. */
  readonly matmul4BitTokens: readonly number[];
}

export interface Effort {
  readonly repetitions: number;
  readonly matmulRepetitions: number;
  readonly compute: Readonly<Record<ComputingDevice, ComputeEffort>>;
  /**
   * Transfers that are waited for as one, as the engine waits for a layer: from a slice of a small one to a large one.
   */
  readonly diskTransferBytes: readonly number[];
  readonly diskRepetitions: number;
  readonly linkRepetitions: number;
}

export const QUICK: Effort = {
  repetitions: 9,
  matmulRepetitions: 9,
  compute: {
    cpu: {
      memoryBytes: 128 * MIB,
      matmulTokens: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
      narrowMatmulTokens: [1, 4, 16, 64, 256],
      matmul4BitTokens: [1, 4, 16, 64, 256],
    },
    cuda: {
      memoryBytes: 256 * MIB,
      matmulTokens: [1, 4, 16, 17, 64, 256, 1024, 4096],
      narrowMatmulTokens: [1, 16, 17, 256],
      matmul4BitTokens: [1, 4, 16, 17, 64, 256, 1024, 4096],
    },
  },
  diskTransferBytes: [16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB],
  diskRepetitions: 11,
  linkRepetitions: 7,
};

export const THOROUGH: Effort = {
  repetitions: 31,
  matmulRepetitions: 21,
  compute: {
    cpu: {
      memoryBytes: 512 * MIB,
      matmulTokens: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
      narrowMatmulTokens: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
      matmul4BitTokens: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
    },
    cuda: {
      memoryBytes: 1024 * MIB,
      matmulTokens: [1, 2, 4, 8, 16, 17, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192],
      narrowMatmulTokens: [1, 4, 16, 17, 64, 256, 1024, 4096],
      matmul4BitTokens: [1, 2, 4, 8, 16, 17, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192],
    },
  },
  diskTransferBytes: [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB],
  diskRepetitions: 31,
  linkRepetitions: 21,
};

/** Largest single request of the engine; longer transfers are split and kept in flight together. */
export const LARGEST_DISK_REQUEST_BYTES = 4 * MIB;

/** Paced copies are as slow as the link that they stand for: large ones only where the link is fast. */
export const LINK_SIZES_BYTES: readonly number[] = [16 * KIB, 64 * KIB, 256 * KIB, MIB, 8 * MIB];
/** Copies between pinned memory and a GPU: from a batch's hidden states to a layer's weights. */
export const CUDA_LINK_SIZES_BYTES: readonly number[] = [16 * KIB, 256 * KIB, 4 * MIB, 64 * MIB, 512 * MIB];
export const LONGEST_LINK_COPY_SECONDS = 0.05;

/**
 * What is computed with: matrices and heads of models of the size that such a device runs, larger than its caches. Few
 * rows are those of a small model's matrices, or of the KV heads of a large one's.
 */
export const SHAPES = {
  cpu: {
    matrix: { rows: 2048, cols: 2048 },
    narrowRows: 256,
    heads: { numHeads: 16, numKvHeads: 16, headDim: 64 },
    prefill: { sequences: 8, tokens: 128 },
    decode: { sequences: 32, tokens: 512 },
  },
  cuda: {
    matrix: { rows: 8192, cols: 8192 },
    narrowRows: 1024,
    heads: { numHeads: 32, numKvHeads: 32, headDim: 128 },
    prefill: { sequences: 8, tokens: 512 },
    decode: { sequences: 64, tokens: 1024 },
  },
} as const;
