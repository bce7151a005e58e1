/** Measures this machine with the engine's own kernels, copies and waits, and writes down what they do. */
import { FlexplanError } from '../errors.js';
import type { HostLimits } from '../engine/host-limits.js';
import type { Instruments } from '../engine/instruments.js';
import type { NativeSystemInfo } from '../engine/native-addon.js';
import { checkHardwareProfile } from '../hardware/check-profile.js';
import type { HardwareProfile, Quantity } from '../hardware/hardware-profile.js';
import type { Device } from '../tiers.js';
import { MIB } from '../units.js';
import { QUICK, THOROUGH, type Effort } from './effort.js';
import { computeSteps, measureCompute, type Step } from './measure-compute.js';
import { linkSizes, measureDisk, measureGpuLink } from './measure-links.js';
import { measured, median } from './statistics.js';

export interface ProfileOptions {
  readonly name: string;
  readonly device: Device;
  readonly quick: boolean;
  /** What this process may use. */
  readonly limits: HostLimits;
  /** Emulated device: size of its arena. A real one: a cap below what is free. */
  readonly gpuMemoryBytes?: number | undefined;
  /** Emulated device: rate of each direction of its link. */
  readonly linkBytesPerSecond: number;
  /** Where disk rates are measured: the folder that will hold spill files. */
  readonly diskDirectory: string;
  /** Bytes free there. */
  readonly diskFreeBytes: number;
  /** ISO 8601. */
  readonly date: string;
  readonly nodeVersion: string;
  readonly signal?: AbortSignal;
  /** Before each measurement. */
  readonly onStep?: (title: string, done: number, total: number) => void;
}

/** The rest stays with the operating system and with whatever else runs here. */
const USABLE_SHARE_OF_FREE_MEMORY = 0.9;
const USABLE_SHARE_OF_FREE_DISK = 0.9;
/** Besides what is taken at the start: kernels and libraries that the driver loads when they are first used. */
const GPU_DRIVER_BYTES = 512 * MIB;
const DTYPE = 'float16';

function stepper(options: ProfileOptions, total: number): Step {
  let done = 0;
  return async (title, measure) => {
    if (options.signal?.aborted) throw new FlexplanError('interrupted', 'interrupted before the profile was complete');
    options.onStep?.(title, done++, total);
    return measure();
  };
}

function countSteps({ device, linkBytesPerSecond }: ProfileOptions, effort: Effort): number {
  const links = device === 'cpu' ? 0 : 2 * linkSizes(device, linkBytesPerSecond).length;
  const gpu = device === 'cuda' ? computeSteps(effort, 'cuda') : 0;
  return computeSteps(effort, 'cpu') + gpu + 1 + 2 * effort.diskTransferBytes.length + links;
}

function capacity(value: number, source: 'measured' | 'set', note: string): Quantity {
  return { value: Math.floor(value), source, note };
}

function environment(options: ProfileOptions, system: NativeSystemInfo): Record<string, string | number> {
  const { cpus, totalMemoryBytes, availableMemoryBytes } = options.limits;
  return {
    cpuName: system.cpuName,
    isa: system.isa,
    numThreads: cpus,
    totalMemoryBytes,
    availableMemoryBytes,
    diskDirectory: options.diskDirectory,
    dtype: DTYPE,
    node: options.nodeVersion,
    date: options.date,
    effort: options.quick ? 'quick' : 'thorough',
    ...(options.device === 'emulated' && { linkBytesPerSecond: options.linkBytesPerSecond }),
    ...(options.device === 'cuda' && gpuEnvironment(system)),
  };
}

function gpuEnvironment({ cudaDevices: [gpu] }: NativeSystemInfo): Record<string, string | number> {
  if (!gpu) throw new FlexplanError('no-device', 'expected a CUDA device, got none; use --device cpu or emulated');
  const { name, computeCapability, totalBytes, freeBytes = totalBytes } = gpu;
  return { gpuName: name, computeCapability, gpuTotalBytes: totalBytes, gpuFreeBytes: freeBytes };
}

/** The size of an emulated arena, or what a GPU has free but for what its driver takes as it goes on. */
function gpuCapacity({ device, gpuMemoryBytes }: ProfileOptions, system: NativeSystemInfo): Quantity | undefined {
  if (device === 'cpu') return undefined;
  const [gpu] = device === 'cuda' ? system.cudaDevices : [];
  const free = gpu && (gpu.freeBytes ?? gpu.totalBytes) - GPU_DRIVER_BYTES;
  if (free !== undefined && free <= (gpuMemoryBytes ?? Infinity))
    return capacity(free, 'measured', 'the memory that was free, less 512 MiB for the driver');
  return capacity(gpuMemoryBytes ?? 0, 'set', device === 'cuda' ? 'capped' : 'size of the emulated arena');
}

async function measureTask(instruments: Instruments, step: Step, effort: Effort): Promise<Quantity> {
  const { seconds, work } = await step('task hand-over', () => instruments.task({ repetitions: effort.repetitions }));
  return measured(median(seconds) / work, seconds);
}

async function gpuLinks(instruments: Instruments, step: Step, options: ProfileOptions, effort: Effort) {
  const { device, linkBytesPerSecond } = options;
  if (device === 'cpu') return {};
  const link = { device, linkBytesPerSecond };
  return {
    cpuToGpu: await measureGpuLink(instruments, step, 'cpuToGpu', link, effort),
    gpuToCpu: await measureGpuLink(instruments, step, 'gpuToCpu', link, effort),
  };
}

const DESCRIPTIONS: Readonly<Record<Device, string>> = {
  cpu: 'Measured on this machine.',
  cuda: 'Measured on this machine.',
  emulated: 'Emulated GPU: a capped region of RAM behind rate-limited copies; its kernels run on the CPU.',
};

/** Every rate is measured here; the profile is checked against its schema before it is handed back. */
export async function profileMachine(instruments: Instruments, options: ProfileOptions): Promise<HardwareProfile> {
  const effort = options.quick ? QUICK : THOROUGH;
  const step = stepper(options, countSteps(options, effort));
  const system = await instruments.systemInfo();
  const cpu = await measureCompute(instruments, step, effort, DTYPE, 'cpu');
  const gpu = options.device === 'cuda' ? await measureCompute(instruments, step, effort, DTYPE, 'cuda') : undefined;
  const taskSeconds = await measureTask(instruments, step, effort);
  const diskToCpu = await measureDisk(instruments, step, 'read', options.diskDirectory, effort);
  const cpuToDisk = await measureDisk(instruments, step, 'write', options.diskDirectory, effort);
  const links = await gpuLinks(instruments, step, options, effort);
  const gpuBytes = gpuCapacity(options, system);
  const cpuBytes = options.limits.availableMemoryBytes * USABLE_SHARE_OF_FREE_MEMORY;
  const diskBytes = options.diskFreeBytes * USABLE_SHARE_OF_FREE_DISK;
  return checkHardwareProfile({
    schemaVersion: 1,
    name: options.name,
    description: DESCRIPTIONS[options.device],
    device: options.device,
    memory: {
      ...(gpuBytes && { gpuBytes }),
      cpuBytes: capacity(cpuBytes, 'measured', '90 % of the memory that was free'),
      diskBytes: capacity(diskBytes, 'measured', '90 % of the space that was free'),
    },
    links: { ...links, diskToCpu, cpuToDisk },
    compute: { ...(gpu && { gpu }), cpu },
    taskSeconds,
    environment: environment(options, system),
  } satisfies HardwareProfile);
}
