/** As much of a plan as choosing a device reads. */
import type { HardwareProfile } from '../../src/hardware/hardware-profile.js';
import type { Plan } from '../../src/solver/plan.js';

const set = (value: number) => ({ value, source: 'set' }) as const;
const link = { bytesPerSecond: set(150e6), latencySeconds: set(1e-5) };

export function emulatedPlan(environment: Record<string, number>): Plan {
  const profile = {
    schemaVersion: 1,
    name: 'emulated',
    device: 'emulated',
    memory: { gpuBytes: set(4e6), cpuBytes: set(8e9), diskBytes: set(1e12) },
    links: { cpuToGpu: link, gpuToCpu: link, diskToCpu: link, cpuToDisk: link },
    environment,
  } as unknown as HardwareProfile;
  const capacityBytes = { gpu: 4e6, cpu: 8e9, disk: 1e12 };
  return { hardware: { name: 'emulated', device: 'emulated', capacityBytes, profile } } as Plan;
}
