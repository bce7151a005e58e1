import { statfs } from 'node:fs/promises';
import { basename, resolve } from 'node:path';
import { FlexplanError } from '../../errors.js';
import { GB, GIB } from '../../units.js';
import { defineCommand, type Context, type Options } from '../command.js';
import { deviceOptions, flag, size, text } from '../options.js';

const DEFAULT_OUT = 'this-machine.json';
const DEFAULT_GPU_MEMORY_BYTES = 2 * GIB;
const DEFAULT_LINK_BYTES_PER_SECOND = 4 * GB;

const options = {
  ...deviceOptions,
  gpuMemory: size(
    '--gpu-memory <size>',
    'emulated device: size of its memory (default: 2GiB); a GPU: use no more than this',
  ),
  quick: flag('--quick', 'fewer sizes and repetitions: well under a minute'),
  diskDir: text('--disk-dir <dir>', 'folder on the disk to measure (default: the current one)'),
  name: text('--name <name>', "the profile's name (default: the GPU's, or that of the file)"),
  out: text('--out <file>', `where to write the profile (default: ${DEFAULT_OUT})`),
};

async function freeBytes(directory: string): Promise<number> {
  try {
    const { bavail, bsize } = await statfs(directory);
    return bavail * bsize;
  } catch (error) {
    throw new FlexplanError('bad-input', `expected a folder for --disk-dir, got "${directory}"; create it first`, {
      cause: error,
    });
  }
}

/** "NVIDIA H100 80GB HBM3" -> nvidia-h100-80gb-hbm3 */
export function profileName(gpuName: string): string {
  return gpuName
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}

async function measure(given: Options<typeof options>, out: string, context: Context) {
  const { hostLimits } = await import('../../engine/host-limits.js');
  const { withInstruments } = await import('../../engine/instruments.js');
  const { profileMachine } = await import('../../profiler/profile-machine.js');
  const { resolveDevice } = await import('../device.js');
  const { startProgress } = await import('../progress.js');
  const diskDirectory = resolve(given.diskDir ?? '.');
  const diskFreeBytes = await freeBytes(diskDirectory);
  return withInstruments(async (instruments) => {
    const system = await instruments.systemInfo();
    const device = resolveDevice(given.device, system);
    const [gpu] = device === 'cuda' ? system.cudaDevices : [];
    let progress: ReturnType<typeof startProgress> | undefined;
    try {
      return await profileMachine(instruments, {
        name: given.name ?? (gpu ? profileName(gpu.name) : basename(out, '.json')),
        device,
        quick: given.quick ?? false,
        limits: hostLimits(),
        gpuMemoryBytes: given.gpuMemory ?? (device === 'emulated' ? DEFAULT_GPU_MEMORY_BYTES : undefined),
        linkBytesPerSecond: given.linkBandwidth ?? DEFAULT_LINK_BYTES_PER_SECOND,
        diskDirectory,
        diskFreeBytes,
        date: new Date().toISOString(),
        nodeVersion: process.version,
        signal: context.signal,
        onStep: (title, done, total) => {
          progress ??= startProgress('measuring', total);
          progress.update(done, title);
        },
      });
    } finally {
      progress?.stop();
    }
  });
}

export const profileCommand = defineCommand({
  name: 'profile',
  summary: 'measure this machine and write a hardware profile',
  example:
    'flexplan profile --quick --out this-machine.json\nflexplan profile --device emulated --gpu-memory 2GiB --link-bandwidth 4GB/s --out emulated.json',
  options,
  async run(given, context) {
    const out = given.out ?? DEFAULT_OUT;
    const profile = await measure(given, out, context);
    const { writeJson } = await import('../files.js');
    const { profileText } = await import('../profile-text.js');
    writeJson(out, profile);
    return { document: profile, text: () => profileText(profile, out) };
  },
});
