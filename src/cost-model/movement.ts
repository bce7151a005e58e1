/** A movement of bytes over a link, and what the formulas of traffic, compute and memory share. */
import type { ModelConfig } from '../models/model-config.js';
import type { Device, Link } from '../tiers.js';
import type { Affine } from './affine.js';
import type { BatchShape } from './cost-terms.js';
import type { Shares } from './shares.js';

type Task = 'loadWeights' | 'loadKvCache' | 'loadActivations' | 'compute' | 'storeKvCache' | 'storeActivations';

/** Useful bytes (no page padding) and transfers that one task sends over one link. */
export interface Movement {
  readonly task: Task;
  readonly link: Link;
  /** Where the bytes are at home. */
  readonly home: 'cpu' | 'disk';
  /** Of `bytes` and `transfers`, this share is moved. */
  readonly share: Affine;
  readonly bytes: number;
  readonly transfers: number;
}

/** What the formulas of traffic, compute and memory all need. */
export interface Setting {
  readonly model: ModelConfig;
  readonly shape: BatchShape;
  readonly shares: Shares;
  readonly device: Device;
  readonly hasGpu: boolean;
}

/** Tiers that are not the device's. (Without a gpu tier nothing crosses a link from `cpu`.) */
export type AwayTier = 'cpu' | 'disk';
export const AWAY_TIERS: readonly AwayTier[] = ['cpu', 'disk'];

export function linksToDevice(tier: AwayTier, hasGpu: boolean): Link[] {
  return [...(tier === 'disk' ? (['diskToCpu'] as const) : []), ...(hasGpu ? (['cpuToGpu'] as const) : [])];
}

export function linksFromDevice(tier: AwayTier, hasGpu: boolean): Link[] {
  return [...(hasGpu ? (['gpuToCpu'] as const) : []), ...(tier === 'disk' ? (['cpuToDisk'] as const) : [])];
}

export function isDisk(link: Link): boolean {
  return link === 'diskToCpu' || link === 'cpuToDisk';
}
