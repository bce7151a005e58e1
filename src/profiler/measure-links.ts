/** Links: transfers of several sizes, as the engine makes them, fitted to latency and rate. */
import type { Instruments } from '../engine/instruments.js';
import type { NativeSamples } from '../engine/native-addon.js';
import type { LinkRate } from '../hardware/hardware-profile.js';
import {
  CUDA_LINK_SIZES_BYTES,
  LARGEST_DISK_REQUEST_BYTES,
  LINK_SIZES_BYTES,
  LONGEST_LINK_COPY_SECONDS,
  type Effort,
} from './effort.js';
import { fitLink } from './fit-link.js';
import type { Step } from './measure-compute.js';
import { formatBytes } from '../units.js';
import { measured, median } from './statistics.js';

/** One size: its samples, in ascending order of size. */
interface SizedSamples {
  readonly bytes: number;
  readonly samples: NativeSamples;
}

/** The spread of the rate is that of the largest transfer, the spread of the latency that of the smallest. */
function linkRateOf(sizes: readonly SizedSamples[]): LinkRate {
  const fit = fitLink(sizes.map(({ bytes, samples }) => ({ bytes, seconds: secondsOf(bytes, samples) })));
  return {
    bytesPerSecond: measured(fit.bytesPerSecond, sizes[sizes.length - 1]!.samples.seconds),
    latencySeconds: measured(fit.latencySeconds, sizes[0]!.samples.seconds),
  };
}

/** Seconds of one transfer of `bytes`; a repetition may hold several (`work` is the bytes of a repetition). */
function secondsOf(bytes: number, { seconds, work }: NativeSamples): number {
  return (median(seconds) * bytes) / work;
}

export async function measureDisk(
  instruments: Instruments,
  step: Step,
  direction: 'read' | 'write',
  directory: string,
  effort: Effort,
): Promise<LinkRate> {
  const sizes: SizedSamples[] = [];
  for (const bytes of effort.diskTransferBytes) {
    const options = {
      directory,
      fileBytes: bytes,
      requestBytes: Math.min(bytes, LARGEST_DISK_REQUEST_BYTES),
      repetitions: effort.diskRepetitions,
    };
    const samples = await step(`disk ${direction}, ${formatBytes(bytes)}`, () =>
      direction === 'read' ? instruments.diskRead(options) : instruments.diskWrite(options),
    );
    sizes.push({ bytes, samples });
  }
  return linkRateOf(sizes);
}

/** The sizes that a link of this rate copies in a bearable time; at least two, or there is no line to fit. */
export function linkSizes(device: 'cuda' | 'emulated', bytesPerSecond: number): readonly number[] {
  if (device === 'cuda') return CUDA_LINK_SIZES_BYTES;
  const most = Math.max(bytesPerSecond * LONGEST_LINK_COPY_SECONDS, LINK_SIZES_BYTES[1]!);
  return LINK_SIZES_BYTES.filter((bytes) => bytes <= most);
}

/** `linkBytesPerSecond`: what an emulated link is held to. */
export async function measureGpuLink(
  instruments: Instruments,
  step: Step,
  link: 'cpuToGpu' | 'gpuToCpu',
  { device, linkBytesPerSecond }: { device: 'cuda' | 'emulated'; linkBytesPerSecond: number },
  effort: Effort,
): Promise<LinkRate> {
  const sizes: SizedSamples[] = [];
  for (const bytes of linkSizes(device, linkBytesPerSecond)) {
    const samples = await step(`${link}, ${formatBytes(bytes)}`, () =>
      instruments.linkCopy({ device, link, linkBytesPerSecond, bytes, repetitions: effort.linkRepetitions }),
    );
    sizes.push({ bytes, samples });
  }
  return linkRateOf(sizes);
}
