/** A machine of known rates: what a profile of it must say can be computed by hand. */
import type { Instruments } from '../../src/engine/instruments.js';
import type { NativeCudaDevice, NativeSamples, NativeSystemInfo } from '../../src/engine/native-addon.js';

export const KNOWN = {
  launchSeconds: 4e-6,
  wakeSeconds: 50e-6,
  taskSeconds: 3e-6,
  memoryBytesPerSecond: 20e9,
  flopsPerSecond: 100e9,
  narrowFlopsPerSecond: 70e9,
  flopsPerSecond4Bit: 80e9,
  prefillFlopsPerSecond: 40e9,
  decodeBytesPerSecond: 15e9,
  decode4BitBytesPerSecond: 6e9,
  diskRead: { latencySeconds: 80e-6, bytesPerSecond: 1e9 },
  diskWrite: { latencySeconds: 120e-6, bytesPerSecond: 0.5e9 },
  linkLatencySeconds: 10e-6,
  pinnedBytesPerSecond: 25e9,
} as const;

const SYSTEM: NativeSystemInfo = {
  cpuName: 'Known CPU',
  isa: 'generic',
  isas: ['generic'],
  hasCuda: false,
  cudaDevices: [],
};

function samples(seconds: number, work: number, repetitions: number): Promise<NativeSamples> {
  // One repetition in five is ten times as slow: a neighbour on the machine.
  return Promise.resolve({
    seconds: Float64Array.from({ length: repetitions }, (_, i) => (i % 5 === 4 ? 10 : 1) * seconds),
    work,
  });
}

/** The GPU of the known machine does everything so many times as fast as its CPU. */
export const GPU_SPEED = 50;
export const KNOWN_GPU: NativeCudaDevice = {
  name: 'Known GPU 10GB',
  computeCapability: 90,
  totalBytes: 10e9,
  freeBytes: 8e9,
};

export function fakeInstruments(calls: string[] = [], cudaDevices: readonly NativeCudaDevice[] = []): Instruments {
  const launch = KNOWN.launchSeconds;
  const speed = (device: 'cpu' | 'cuda' = 'cpu') => (device === 'cuda' ? GPU_SPEED : 1);
  return {
    systemInfo: () => Promise.resolve({ ...SYSTEM, hasCuda: cudaDevices.length > 0, cudaDevices }),
    launch: ({ device, pauseSeconds, repetitions }) =>
      samples((launch + (pauseSeconds > 0 ? KNOWN.wakeSeconds : 0)) / speed(device), 1, repetitions),
    task: ({ repetitions }) => samples(KNOWN.taskSeconds * 1000, 1000, repetitions),
    memoryRead: ({ device, bytes, repetitions }) =>
      samples(bytes / KNOWN.memoryBytesPerSecond / speed(device), bytes, repetitions),
    matmul({ device, tokens, rows, cols, weightBits, repetitions }) {
      calls.push(`matmul ${weightBits} ${tokens}`);
      const flops = 2 * tokens * rows * cols;
      const wide = weightBits === 4 ? KNOWN.flopsPerSecond4Bit : KNOWN.flopsPerSecond;
      const rate = rows < cols ? KNOWN.narrowFlopsPerSecond : wide;
      return samples((launch + flops / rate) / speed(device), flops, repetitions);
    },
    attention({ device, phase, kvCacheBits, repetitions }) {
      const rate =
        phase === 'prefill'
          ? KNOWN.prefillFlopsPerSecond
          : kvCacheBits === 4
            ? KNOWN.decode4BitBytesPerSecond
            : KNOWN.decodeBytesPerSecond;
      return samples((launch + 1e8 / rate) / speed(device), 1e8, repetitions);
    },
    diskRead: ({ fileBytes, repetitions }) =>
      samples(KNOWN.diskRead.latencySeconds + fileBytes / KNOWN.diskRead.bytesPerSecond, fileBytes, repetitions),
    diskWrite: ({ fileBytes, repetitions }) =>
      samples(KNOWN.diskWrite.latencySeconds + fileBytes / KNOWN.diskWrite.bytesPerSecond, fileBytes, repetitions),
    linkCopy: ({ device, bytes, linkBytesPerSecond, repetitions }) => {
      const rate = device === 'cuda' ? KNOWN.pinnedBytesPerSecond : linkBytesPerSecond;
      return samples(KNOWN.linkLatencySeconds + bytes / rate, bytes, repetitions);
    },
  };
}
