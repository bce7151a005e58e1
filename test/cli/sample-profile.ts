/** An emulated machine of set rates, so that planning in tests needs no measuring. */
import type { HardwareProfile, LinkRate, Quantity } from '../../src/hardware/hardware-profile.js';

const set = (value: number): Quantity => ({ value, source: 'set' });
const link = (bytesPerSecond: number): LinkRate => ({
  bytesPerSecond: set(bytesPerSecond),
  latencySeconds: set(20e-6),
});

export function emulatedProfile(gpuBytes: number, linkBytesPerSecond: number): HardwareProfile {
  return {
    schemaVersion: 1,
    name: 'emulated-test',
    device: 'emulated',
    memory: { gpuBytes: set(gpuBytes), cpuBytes: set(1e9), diskBytes: set(1e9) },
    links: {
      cpuToGpu: link(linkBytesPerSecond),
      gpuToCpu: link(linkBytesPerSecond),
      diskToCpu: link(500e6),
      cpuToDisk: link(500e6),
    },
    compute: {
      cpu: {
        matmul: [
          { tokens: 1, flopsPerSecond: set(10e9) },
          { tokens: 16, flopsPerSecond: set(60e9) },
          { tokens: 256, flopsPerSecond: set(100e9) },
        ],
        memoryBytesPerSecond: set(20e9),
        attentionPrefillFlopsPerSecond: set(20e9),
        attentionDecodeBytesPerSecond: set(10e9),
        launchSeconds: set(3e-6),
      },
    },
    taskSeconds: set(5e-6),
    environment: { linkBytesPerSecond },
  };
}
