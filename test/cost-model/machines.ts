/** Machines with round numbers. */
import type { ComputeRates, HardwareProfile, Quantity } from '../../src/hardware/hardware-profile.js';
import type { Device } from '../../src/tiers.js';

export const quantity = (value: number): Quantity => ({ value, source: 'set' });

const link = (bytesPerSecond: number, latencySeconds: number) => ({
  bytesPerSecond: quantity(bytesPerSecond),
  latencySeconds: quantity(latencySeconds),
});

const rates = (speed: number): ComputeRates => ({
  matmul: [
    { tokens: 1, flopsPerSecond: quantity(2e9 * speed) },
    { tokens: 64, flopsPerSecond: quantity(64e9 * speed) },
  ],
  memoryBytesPerSecond: quantity(20e9 * speed),
  attentionPrefillFlopsPerSecond: quantity(10e9 * speed),
  attentionDecodeBytesPerSecond: quantity(8e9 * speed),
  launchSeconds: quantity(1e-6),
});

/** 1 MB of GPU memory, 10 MB of RAM, 100 MB of disk; the GPU is ten times as fast as the CPU. */
export function machine(device: Device = 'cuda'): HardwareProfile {
  return {
    schemaVersion: 1,
    name: 'example',
    device,
    memory: { gpuBytes: quantity(1e6), cpuBytes: quantity(10e6), diskBytes: quantity(100e6) },
    links: {
      cpuToGpu: link(1e9, 1e-5),
      gpuToCpu: link(0.5e9, 2e-5),
      diskToCpu: link(0.2e9, 1e-4),
      cpuToDisk: link(0.1e9, 2e-4),
    },
    compute: { gpu: rates(10), cpu: rates(1) },
    taskSeconds: quantity(5e-6),
  };
}
