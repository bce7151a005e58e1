/** Fractions -> whole slices: what is planned is what is placed. The rules are in docs/schedule.md, "Where bytes live". */
import type { Tier } from '../tiers.js';
import type { Placement, TensorClass, TierBytes } from './policy.js';

/** Rows [0, gpuRows) live on gpu, the next cpuRows on cpu, the rest on disk. Vectors: cols = 1, wholly on the device tier. */
export interface TensorPlacement {
  readonly role: string;
  readonly rows: number;
  readonly cols: number;
  readonly gpuRows: number;
  readonly cpuRows: number;
}

/** All decoder layers are cut alike, so three patterns describe the model. */
export interface WeightPlacement {
  readonly embed: readonly TensorPlacement[];
  readonly decoder: readonly TensorPlacement[];
  readonly head: readonly TensorPlacement[];
}

export interface SlotPlacement {
  readonly kvTier: Tier;
  readonly activationTier: Tier;
  /** Decode attention on the CPU although the device is a GPU. */
  readonly cpuAttention: boolean;
}

export interface Realisation {
  /** The nine fractions really placed. */
  readonly placement: Placement;
  readonly weights: WeightPlacement;
  /** Length blockSize. */
  readonly slots: readonly SlotPlacement[];
  /** weights: the whole model; kvCache, activations: reserved for the largest block. */
  readonly bytes: Readonly<Record<TensorClass, TierBytes>>;
}
