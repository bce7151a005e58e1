/** `--device`: what `auto` means here, and the numbers of the emulated device. */
import type { EngineOptions } from '../engine/engine.js';
import type { NativeCudaDevice, NativeSystemInfo } from '../engine/native-addon.js';
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

/** The engine has no code for older GPUs: native/cuda/cuda_api.h, kLeastComputeCapability. */
const LEAST_COMPUTE_CAPABILITY = 75;

/** `auto` and nothing at all: cuda where it can be used, else cpu. Throws `no-device` saying why there is no cuda. */
export function resolveDevice(wanted: Device | 'auto' | undefined, system: NativeSystemInfo): Device {
  const lack = whyNoCuda(system);
  if (wanted === 'cuda' && lack)
    throw new FlexplanError(
      'no-device',
      `expected a CUDA device, got ${lack}; or use --device cpu or --device emulated`,
    );
  if (wanted === undefined || wanted === 'auto') return lack ? 'cpu' : 'cuda';
  return wanted;
}

/** What is missing, and what to do about it. */
function whyNoCuda({ hasCuda, cudaDevices: [gpu] }: NativeSystemInfo): string | undefined {
  if (!hasCuda)
    return 'an engine built without it; install the CUDA toolkit (nvcc 12 or newer), then run `npm run build:native`';
  if (!gpu) return 'none; check the driver with `nvidia-smi` and the variable CUDA_VISIBLE_DEVICES';
  if (gpu.computeCapability < LEAST_COMPUTE_CAPABILITY)
    return `${gpu.name} of compute capability ${version(gpu)}; choose a GPU of ${LEAST_COMPUTE_CAPABILITY / 10} or newer with CUDA_VISIBLE_DEVICES`;
  return undefined;
}

function version({ computeCapability }: NativeCudaDevice): string {
  return (computeCapability / 10).toFixed(1);
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

/** `--no-quantization-cache` and its limit, as the engine takes them. */
export function quantizationCache(given: {
  readonly quantizationCache?: boolean | undefined;
  readonly quantizationCacheLimit?: number | undefined;
}): Pick<EngineOptions, 'quantizationCache'> {
  const { quantizationCacheLimit: limitBytes } = given;
  if (given.quantizationCache === false) return { quantizationCache: false };
  return limitBytes === undefined ? {} : { quantizationCache: { limitBytes } };
}

async function askMachine(wanted: Device | 'auto'): Promise<Device> {
  const { withInstruments } = await import('../engine/instruments.js');
  return withInstruments(async (instruments) => resolveDevice(wanted, await instruments.systemInfo()));
}
