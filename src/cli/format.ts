/** Tables and words for the terminal. */
import Table from 'cli-table3';
import picocolors from 'picocolors';
import type { Policy } from '../policy/policy.js';
import type { StageName, Tier } from '../tiers.js';

const PLAIN = { top: '', 'top-mid': '', 'top-left': '', 'top-right': '' };
const FRAME = {
  ...PLAIN,
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '  ',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: '  ',
};

/** Colour is for people: never in a pipe or a file, not even where picocolors would (it takes CI for a terminal). */
const pc = picocolors.createColors(
  process.env['FORCE_COLOR'] !== undefined || (process.stdout.isTTY === true && picocolors.isColorSupported),
);

/** Rows under a dim head, numbers (every column but the first, unless told) to the right. */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  align: readonly ('left' | 'right')[] = head.map((_, i) => (i === 0 ? 'left' : 'right')),
): string {
  const grid = new Table({
    chars: FRAME,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    colAligns: [...align],
  });
  if (head.some((cell) => cell !== '')) grid.push(head.map((cell) => pc.dim(cell)));
  grid.push(...rows.map((row) => [...row]));
  return grid
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

export function heading(text: string): string {
  return pc.bold(text);
}

export function paragraphs(...parts: readonly (string | undefined | false)[]): string {
  return parts.filter((part) => part).join('\n\n');
}

export function percent(fraction: number): string {
  return `${Number((fraction * 100).toFixed(1))} %`;
}

/** A change against a base: `+3.1 %`. */
export function signedPercent(fraction: number): string {
  return `${fraction >= 0 ? '+' : '-'}${percent(Math.abs(fraction))}`;
}

export function decimal(value: number): string {
  if (value === 0) return '0';
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3)));
}

export const TIER_WORDS: Readonly<Record<Tier, string>> = { gpu: 'GPU', cpu: 'RAM', disk: 'disk' };

export const STAGE_WORDS: Readonly<Record<StageName, string>> = {
  compute: 'device compute',
  cpuAttention: 'CPU attention',
  cpuToGpu: 'RAM to GPU',
  gpuToCpu: 'GPU to RAM',
  diskToCpu: 'disk to RAM',
  cpuToDisk: 'RAM to disk',
};

export function batchWords({ gpuBatchSize, numGpuBatches }: Policy): string {
  return `${gpuBatchSize} x ${numGpuBatches} = ${gpuBatchSize * numGpuBatches} sequences a block`;
}

export function bitsWords(bits: 16 | 4): string {
  return bits === 4 ? '4-bit' : "the model's own (16-bit)";
}

/** Where decode attention runs. */
export function attentionWords(policy: Policy): string {
  const { kvCache } = policy.placement;
  if (kvCache.cpu + kvCache.disk === 0) return 'on the device';
  const offDevice = kvCache.cpu * policy.cpuAttentionFraction + kvCache.disk * (policy.diskKvCpuAttentionFraction ?? 0);
  if (offDevice === 0) return 'on the device; KV cache is moved to it';
  return offDevice > 0.9999 ? 'on the CPU' : `${percent(offDevice)} of the sequences on the CPU`;
}

/** `4/16`: bits of weights and KV cache. */
export function bitsShort({ weightBits, kvCacheBits }: Policy): string {
  return `${weightBits}/${kvCacheBits} bit`;
}
