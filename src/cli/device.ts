/** `--device`: what `auto` means here, and the numbers of the emulated device. */
import type { NativeSystemInfo } from '../engine/native-addon.js';
import { FlexplanError } from '../errors.js';
import type { Device } from '../tiers.js';

export function resolveDevice(wanted: Device | 'auto' | undefined, { cudaDevices }: NativeSystemInfo): Device {
  if (wanted === 'cuda' && cudaDevices.length === 0)
    throw new FlexplanError('no-device', 'expected a CUDA device, got none; use --device cpu or --device emulated');
  if (wanted === undefined || wanted === 'auto') return cudaDevices.length > 0 ? 'cuda' : 'cpu';
  return wanted;
}

/** `Intel Xeon, 8 threads (avx512)` */
export function machineWords({ cpuName, numCpus, isa }: NativeSystemInfo): string {
  return `${cpuName}, ${numCpus} threads (${isa})`;
}
