/** Where it is computed: what one machine was measured (or is said) to do. JSON: `hardware-profiles/*.json`. */
import type { Device } from '../tiers.js';

/** A number and where it comes from. */
export interface Quantity {
  readonly value: number;
  readonly source: 'measured' | 'fitted' | 'datasheet' | 'paper' | 'set';
  /** Half the distance between the 10th and the 90th percentile of the samples, as a fraction of the median. */
  readonly spread?: number;
  readonly note?: string;
}

/** Time of a transfer = latencySeconds + bytes / bytesPerSecond. */
export interface LinkRate {
  readonly bytesPerSecond: Quantity;
  /**
   * Of KV cache, where an engine keeps it in slower memory than the rest (pageable, not pinned). Absent: as the rest.
   */
  readonly kvCacheBytesPerSecond?: Quantity;
  readonly latencySeconds: Quantity;
}

/** Matmul rate when a launch carries so many tokens. Between points: interpolate time per launch linearly in tokens. */
export interface MatmulPoint {
  readonly tokens: number;
  readonly flopsPerSecond: Quantity;
}

/** Launches over so few rows that they make few pieces to share out, or small ones. */
export interface NarrowMatmul {
  readonly rows: number;
  /** Of the matrix with which `matmul` was measured: more. */
  readonly wideRows: number;
  readonly points: readonly MatmulPoint[];
}

/** What one computing device does. */
export interface ComputeRates {
  /** 16-bit (or fp32) weights, ascending in tokens, weights not in cache. */
  readonly matmul: readonly MatmulPoint[];
  /** The same with few rows. Absent: as fast as with many. */
  readonly narrowMatmul?: NarrowMatmul;
  /** 4-bit weights, dequantization included. Absent: derived from `matmul` and the memory bandwidth. */
  readonly matmul4Bit?: readonly MatmulPoint[];
  readonly memoryBytesPerSecond: Quantity;
  readonly attentionPrefillFlopsPerSecond: Quantity;
  /** KV bytes that decode attention reads per second. */
  readonly attentionDecodeBytesPerSecond: Quantity;
  /** 4-bit KV bytes (compressed) that decode attention reads per second. */
  readonly attentionDecode4BitBytesPerSecond?: Quantity;
  /** 4-bit values that a kernel of their own widens to 16 bits per second. Absent: as fast as memory takes them. */
  readonly dequantizeValuesPerSecond?: Quantity;
  /** Fixed cost of one kernel launch (or one parallel region on a CPU). */
  readonly launchSeconds: Quantity;
  /**
   * What the first launch costs more when the device has waited: threads have parked and must be woken. Absent:
   * nothing.
   */
  readonly wakeSeconds?: Quantity;
}

export interface HardwareProfile {
  readonly schemaVersion: 1;
  readonly name: string;
  readonly description?: string;
  readonly device: Device;
  /** Capacity of each tier that the engine may use. No `gpuBytes`: the machine has no gpu tier. */
  readonly memory: { readonly gpuBytes?: Quantity; readonly cpuBytes: Quantity; readonly diskBytes: Quantity };
  readonly links: {
    readonly cpuToGpu?: LinkRate;
    readonly gpuToCpu?: LinkRate;
    readonly diskToCpu: LinkRate;
    readonly cpuToDisk: LinkRate;
  };
  readonly compute: { readonly gpu?: ComputeRates; readonly cpu: ComputeRates };
  /** Hand-over of one scheduled task between threads or streams, paid once per (token, layer, GPU batch). */
  readonly taskSeconds: Quantity;
  /** What was measured on, when, with what (free form, recorded by `profile`). */
  readonly environment?: Readonly<Record<string, string | number>>;
}
