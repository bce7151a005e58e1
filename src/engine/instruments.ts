/** The engine's own kernels and copies as measuring instruments, in a process of their own. */
import { hostLimits } from './host-limits.js';
import type { NativeMeasurements, NativeSystemInfo } from './native-addon.js';
import { Worker } from './worker.js';
import type { MeasurementName } from './worker-protocol.js';

export interface Instruments extends NativeMeasurements {
  systemInfo(): Promise<NativeSystemInfo>;
}

const NAMES: Readonly<Record<MeasurementName, true>> = {
  memoryRead: true,
  matmul: true,
  attention: true,
  launch: true,
  task: true,
  diskRead: true,
  diskWrite: true,
  linkCopy: true,
};

/** 0 threads: as many as an engine takes. */
function withThreads(options: { readonly numThreads?: number }): object {
  return options.numThreads === 0 ? { ...options, numThreads: hostLimits().cpus } : options;
}

/** Starts a process for measuring, hands its instruments to `use`, and ends it whatever happens. */
export async function withInstruments<T>(use: (instruments: Instruments) => Promise<T>): Promise<T> {
  const worker = new Worker();
  const measurements = Object.fromEntries(
    Object.keys(NAMES).map((name) => [
      name,
      (options: object) => worker.call('measure', { name: name as MeasurementName, options: withThreads(options) }),
    ]),
  ) as unknown as NativeMeasurements;
  try {
    return await use({ ...measurements, systemInfo: () => worker.call('systemInfo', undefined) });
  } finally {
    await worker.close();
  }
}
