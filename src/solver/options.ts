/** What a caller of the solver may ask for. Everything is optional; the defaults are one constant. */
import { FlexplanError } from '../errors.js';
import { capacityBytes, withCapacity } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { Policy } from '../policy/policy.js';

export interface OptimizeOptions {
  /** Caps of what the plan may take of each tier. Default Infinity: all that the profile has. */
  readonly gpuMemoryBytes: number;
  readonly cpuMemoryBytes: number;
  readonly diskBytes: number;
  /** `auto` lets the search decide. Default 16: 4 bits change what the model says. */
  readonly weightBits: Policy['weightBits'] | 'auto';
  readonly kvCacheBits: Policy['kvCacheBits'] | 'auto';
  /** Default `auto`: the search decides. */
  readonly gpuBatchSize: number | 'auto';
  readonly numGpuBatches: number | 'auto';
  /**
   * Longest that a full block may take, from its start to its last token (of blocks that differ, the mean). Default
   * Infinity.
   */
  readonly maxLatencySeconds: number;
  /** Attention reads V of this share of the positions; what finding them takes is memory. Default 1. */
  readonly sparseValueFraction: number;
  /** Run the six tasks concurrently. Default true. */
  readonly overlap: boolean;
}

export const DEFAULT_OPTIONS: Readonly<Required<OptimizeOptions>> = {
  gpuMemoryBytes: Infinity,
  cpuMemoryBytes: Infinity,
  diskBytes: Infinity,
  weightBits: 16,
  kvCacheBits: 16,
  gpuBatchSize: 'auto',
  numGpuBatches: 'auto',
  maxLatencySeconds: Infinity,
  sparseValueFraction: 1,
  overlap: true,
};

const isSize = (value: unknown): boolean => typeof value === 'number' && value >= 0;
const isBits = (value: unknown): boolean => value === 16 || value === 4 || value === 'auto';
const isCount = (value: unknown): boolean =>
  value === 'auto' || (typeof value === 'number' && Number.isSafeInteger(value) && value >= 1);

const RULES: Readonly<Record<keyof OptimizeOptions, readonly [(value: unknown) => boolean, string]>> = {
  gpuMemoryBytes: [isSize, 'a number of bytes'],
  cpuMemoryBytes: [isSize, 'a number of bytes'],
  diskBytes: [isSize, 'a number of bytes'],
  weightBits: [isBits, '16, 4 or "auto"'],
  kvCacheBits: [isBits, '16, 4 or "auto"'],
  gpuBatchSize: [isCount, 'a whole number of at least 1 or "auto"'],
  numGpuBatches: [isCount, 'a whole number of at least 1 or "auto"'],
  maxLatencySeconds: [(value) => typeof value === 'number' && value > 0, 'a positive number of seconds'],
  sparseValueFraction: [
    (value) => typeof value === 'number' && value > 0 && value <= 1,
    'a number above 0 and at most 1',
  ],
  overlap: [(value) => typeof value === 'boolean', 'true or false'],
};

/**
 * Defaults filled in. Throws `usage` that names an unknown key or a value out of range. `undefined` means the default.
 */
export function resolveOptions(options: Partial<OptimizeOptions> = {}): OptimizeOptions {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [key, value] of given) {
    const rule = Object.hasOwn(RULES, key) ? RULES[key as keyof OptimizeOptions] : undefined;
    if (!rule) {
      const known = Object.keys(RULES).join(', ');
      throw new FlexplanError('usage', `expected only the options ${known}, got "${key}"; correct its name`);
    }
    const [accepts, expectation] = rule;
    if (!accepts(value)) {
      throw new FlexplanError('usage', `expected ${key} to be ${expectation}, got ${String(value)}; correct it`);
    }
  }
  return { ...DEFAULT_OPTIONS, ...(Object.fromEntries(given) as Partial<OptimizeOptions>) };
}

/** The machine as far as the plan may use it: each tier's capacity, at most the cap. */
export function cappedHardware(hardware: HardwareProfile, options: OptimizeOptions): HardwareProfile {
  const capacity = capacityBytes(hardware);
  const { gpuMemoryBytes, cpuMemoryBytes, diskBytes } = options;
  return withCapacity(hardware, {
    ...(gpuMemoryBytes < capacity.gpu && { gpu: gpuMemoryBytes }),
    ...(cpuMemoryBytes < capacity.cpu && { cpu: cpuMemoryBytes }),
    ...(diskBytes < capacity.disk && { disk: diskBytes }),
  });
}
