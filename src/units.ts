/** The only conversion factors of the project. GB is 10^9 bytes, GiB is 2^30, everywhere. */
import { FlexplanError } from './errors.js';

export const KB = 1e3;
export const MB = 1e6;
export const GB = 1e9;
export const TB = 1e12;
export const KIB = 2 ** 10;
export const MIB = 2 ** 20;
export const GIB = 2 ** 30;
export const TIB = 2 ** 40;
export const TERA = 1e12;
export const GIGA = 1e9;
export const MILLISECONDS_PER_SECOND = 1e3;

const SIZE_FACTORS: Readonly<Record<string, number>> = {
  b: 1,
  kb: KB,
  mb: MB,
  gb: GB,
  tb: TB,
  kib: KIB,
  mib: MIB,
  gib: GIB,
  tib: TIB,
};

/** Bytes of `16GiB`, `1.5 GB` or `4096`. Throws `usage` on anything else. */
export function parseBytes(text: string): number {
  const match = /^\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*$/i.exec(text);
  const factor = SIZE_FACTORS[(match?.[2] || 'b').toLowerCase()];
  if (!match || factor === undefined) {
    throw new FlexplanError('usage', `expected a size such as 16GiB, 1.5GB or 4096, got "${text}"`);
  }
  return Math.floor(Number(match[1]) * factor);
}

/** Bytes per second of `12GB/s` or `4096`. Throws `usage` on anything else. */
export function parseRate(text: string): number {
  const size = text.trim().replace(/\/s$/i, '');
  try {
    return parseBytes(size);
  } catch {
    throw new FlexplanError('usage', `expected a rate such as 12GB/s, got "${text}"`);
  }
}

function scaled(value: number, units: readonly (readonly [number, string])[]): string {
  const [factor, name] = units.find(([f]) => Math.abs(value) >= f) ?? units[units.length - 1]!;
  const amount = value / factor;
  return `${Number(amount.toPrecision(amount >= 1000 ? 4 : 3))} ${name}`;
}

/** `17179869184` -> `16 GiB`. */
export function formatBytes(bytes: number): string {
  return scaled(bytes, [
    [TIB, 'TiB'],
    [GIB, 'GiB'],
    [MIB, 'MiB'],
    [KIB, 'KiB'],
    [1, 'B'],
  ]);
}

/** `12e9` -> `12 GB/s`. */
export function formatRate(bytesPerSecond: number): string {
  return scaled(bytesPerSecond, [
    [TB, 'TB/s'],
    [GB, 'GB/s'],
    [MB, 'MB/s'],
    [KB, 'kB/s'],
    [1, 'B/s'],
  ]);
}

/** `21e12` -> `21 TFLOP/s`. */
export function formatFlopRate(flopsPerSecond: number): string {
  return scaled(flopsPerSecond, [
    [TERA, 'TFLOP/s'],
    [GIGA, 'GFLOP/s'],
    [MB, 'MFLOP/s'],
    [1, 'FLOP/s'],
  ]);
}

/** `0.0123` -> `12.3 ms`, `5400` -> `1 h 30 min`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 60)
    return scaled(seconds, [
      [1, 's'],
      [1e-3, 'ms'],
      [1e-6, 'us'],
    ]);
  const minutes = Math.round(seconds / 60);
  if (seconds < 600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
