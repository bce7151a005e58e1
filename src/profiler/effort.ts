/** How much is measured: sizes and repetitions, quick and thorough, as data. */
import { KIB, MIB } from '../units.js';

export interface Effort {
  readonly memoryBytes: number;
  readonly repetitions: number;
  readonly matmulTokens: readonly number[];
  /** Points at which 4-bit weights are measured. */
  readonly matmul4BitTokens: readonly number[];
  readonly matmulRepetitions: number;
  /** Transfers that are waited for as one, as the engine waits for a layer: from a slice of a small one to a large one. */
  readonly diskTransferBytes: readonly number[];
  readonly diskRepetitions: number;
  readonly linkRepetitions: number;
}

export const QUICK: Effort = {
  memoryBytes: 128 * MIB,
  repetitions: 9,
  matmulTokens: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512],
  matmul4BitTokens: [1, 4, 16, 64, 256],
  matmulRepetitions: 9,
  diskTransferBytes: [16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB],
  diskRepetitions: 11,
  linkRepetitions: 7,
};

export const THOROUGH: Effort = {
  memoryBytes: 512 * MIB,
  repetitions: 31,
  matmulTokens: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
  matmul4BitTokens: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024],
  matmulRepetitions: 21,
  diskTransferBytes: [4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB],
  diskRepetitions: 31,
  linkRepetitions: 21,
};

/** A square matrix of a mid-size model: large enough to be read from memory, small enough for a laptop. */
export const MATMUL_ROWS = 2048;
export const MATMUL_COLS = 2048;

/** Largest single request of the engine; longer transfers are split and kept in flight together. */
export const LARGEST_DISK_REQUEST_BYTES = 4 * MIB;

/** Paced copies are as slow as the link that they stand for: large ones only where the link is fast. */
export const LINK_SIZES_BYTES: readonly number[] = [16 * KIB, 64 * KIB, 256 * KIB, MIB, 8 * MIB];
export const LONGEST_LINK_COPY_SECONDS = 0.05;

export const ATTENTION = { numHeads: 16, numKvHeads: 16, headDim: 64 } as const;
export const PREFILL_ATTENTION = { sequences: 8, tokens: 128 } as const;
/** KV cache of one layer that is larger than the caches of the CPU. */
export const DECODE_ATTENTION = { sequences: 32, tokens: 512 } as const;
