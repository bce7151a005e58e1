/** `--device`: what `auto` means here, and the numbers of the emulated device. */
import type { EngineOptions } from '../engine/engine.js';
import type { NativeSystemInfo } from '../engine/native-addon.js';
import { FlexplanError } from '../errors.js';
import type { Device, Tier } from '../tiers.js';

export interface DeviceRequest {
  readonly device?: Device | 'auto' | undefined;
  readonly gpuMemory?: number | undefined;
  readonly cpuMemory?: number | undefined;
  readonly disk?: number | undefined;
  readonly linkBandwidth?: number | undefined;
}

export type DeviceSettings = Pick<EngineOptions, 'device' | 'capacityBytes' | 'linkBytesPerSecond'>;

export function resolveDevice(wanted: Device | 'auto' | undefined, { cudaDevices }: NativeSystemInfo): Device {
  if (wanted === 'cuda' && cudaDevices.length === 0)
    throw new FlexplanError('no-device', 'expected a CUDA device, got none; use --device cpu or --device emulated');
  if (wanted === undefined || wanted === 'auto') return cudaDevices.length > 0 ? 'cuda' : 'cpu';
  return wanted;
}

/** Caps that were given; tiers without one keep what the machine has. */
export function requestedCaps({ gpuMemory, cpuMemory, disk }: DeviceRequest): Partial<Record<Tier, number>> {
  return {
    ...(gpuMemory !== undefined && { gpu: gpuMemory }),
    ...(cpuMemory !== undefined && { cpu: cpuMemory }),
    ...(disk !== undefined && { disk }),
  };
}

/** What the engine needs to know of the device, from the options alone. Asks the machine only where it must. */
export async function deviceSettings(request: DeviceRequest): Promise<DeviceSettings> {
  const { device: wanted = 'auto', linkBandwidth } = request;
  const device = wanted === 'cpu' || wanted === 'emulated' ? wanted : await askMachine(wanted);
  return {
    device,
    capacityBytes: requestedCaps(request),
    ...(linkBandwidth !== undefined && {
      linkBytesPerSecond: { cpuToGpu: linkBandwidth, gpuToCpu: linkBandwidth },
    }),
  };
}

async function askMachine(wanted: Device | 'auto'): Promise<Device> {
  const { withInstruments } = await import('../engine/instruments.js');
  return withInstruments(async (instruments) => resolveDevice(wanted, await instruments.systemInfo()));
}
