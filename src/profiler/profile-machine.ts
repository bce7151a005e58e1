/** Measures this machine with the engine's own kernels, copies and waits, and writes down what they do. */
import { FlexplanError } from '../errors.js';
import type { Instruments } from '../engine/instruments.js';
import type { NativeSystemInfo } from '../engine/native-addon.js';
import { checkHardwareProfile } from '../hardware/check-profile.js';
import type { HardwareProfile, Quantity } from '../hardware/hardware-profile.js';
import { QUICK, THOROUGH, type Effort } from './effort.js';
import { computeSteps, measureCompute, type Step } from './measure-compute.js';
import { linkSizes, measureDisk, measureEmulatedLink } from './measure-links.js';
import { measured, median } from './statistics.js';

export interface ProfileOptions {
  readonly name: string;
  readonly device: 'cpu' | 'emulated';
  readonly quick: boolean;
  /** Emulated device: size of its arena and rate of each direction of its link. */
  readonly gpuMemoryBytes: number;
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
const DTYPE = 'float16';

function stepper(options: ProfileOptions, total: number): Step {
  let done = 0;
  return async (title, measure) => {
    if (options.signal?.aborted) throw new FlexplanError('interrupted', 'interrupted before the profile was complete');
    options.onStep?.(title, done++, total);
    return measure();
  };
}

function countSteps(options: ProfileOptions, effort: Effort): number {
  const links = options.device === 'emulated' ? 2 * linkSizes(options.linkBytesPerSecond).length : 0;
  return computeSteps(effort) + 1 + 2 * effort.diskTransferBytes.length + links;
}

function capacity(value: number, source: 'measured' | 'set', note: string): Quantity {
  return { value: Math.floor(value), source, note };
}

function environment(options: ProfileOptions, system: NativeSystemInfo): Record<string, string | number> {
  return {
    cpuName: system.cpuName,
    isa: system.isa,
    numThreads: system.numCpus,
    totalMemoryBytes: system.totalMemoryBytes,
    availableMemoryBytes: system.availableMemoryBytes,
    diskDirectory: options.diskDirectory,
    dtype: DTYPE,
    node: options.nodeVersion,
    date: options.date,
    effort: options.quick ? 'quick' : 'thorough',
    ...(options.device === 'emulated' && { linkBytesPerSecond: options.linkBytesPerSecond }),
  };
}

async function measureTask(instruments: Instruments, step: Step, effort: Effort): Promise<Quantity> {
  const { seconds, work } = await step('task hand-over', () => instruments.task({ repetitions: effort.repetitions }));
  return measured(median(seconds) / work, seconds);
}

async function emulatedLinks(instruments: Instruments, step: Step, rate: number, effort: Effort) {
  return {
    cpuToGpu: await measureEmulatedLink(instruments, step, 'cpuToGpu', rate, effort),
    gpuToCpu: await measureEmulatedLink(instruments, step, 'gpuToCpu', rate, effort),
  };
}

/** Every rate is measured here; the profile is checked against its schema before it is handed back. */
export async function profileMachine(instruments: Instruments, options: ProfileOptions): Promise<HardwareProfile> {
  const effort = options.quick ? QUICK : THOROUGH;
  const emulated = options.device === 'emulated';
  const step = stepper(options, countSteps(options, effort));
  const system = await instruments.systemInfo();
  const cpu = await measureCompute(instruments, step, effort, DTYPE);
  const taskSeconds = await measureTask(instruments, step, effort);
  const diskToCpu = await measureDisk(instruments, step, 'read', options.diskDirectory, effort);
  const cpuToDisk = await measureDisk(instruments, step, 'write', options.diskDirectory, effort);
  const gpuLinks = emulated ? await emulatedLinks(instruments, step, options.linkBytesPerSecond, effort) : {};
  const cpuBytes = system.availableMemoryBytes * USABLE_SHARE_OF_FREE_MEMORY;
  const diskBytes = options.diskFreeBytes * USABLE_SHARE_OF_FREE_DISK;
  return checkHardwareProfile({
    schemaVersion: 1,
    name: options.name,
    description: emulated
      ? 'Emulated GPU: a capped region of RAM behind rate-limited copies; its kernels run on the CPU.'
      : 'Measured on this machine.',
    device: options.device,
    memory: {
      ...(emulated && { gpuBytes: capacity(options.gpuMemoryBytes, 'set', 'size of the emulated arena') }),
      cpuBytes: capacity(cpuBytes, 'measured', '90 % of the memory that was free'),
      diskBytes: capacity(diskBytes, 'measured', '90 % of the space that was free'),
    },
    links: { ...gpuLinks, diskToCpu, cpuToDisk },
    compute: { cpu },
    taskSeconds,
    environment: environment(options, system),
  } satisfies HardwareProfile);
}
