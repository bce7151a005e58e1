import { describe, expect, it } from 'vitest';
import { deviceSettings, resolveDevice } from '../../src/cli/device.js';
import type { NativeCudaDevice, NativeSystemInfo } from '../../src/engine/native-addon.js';
import { FlexplanError } from '../../src/errors.js';

const T4: NativeCudaDevice = { name: 'Tesla T4', computeCapability: 75, totalBytes: 15e9, freeBytes: 14e9 };
const P100: NativeCudaDevice = { ...T4, name: 'Tesla P100', computeCapability: 60 };

function machine(hasCuda: boolean, ...cudaDevices: NativeCudaDevice[]): NativeSystemInfo {
  return {
    cpuName: 'some CPU',
    isa: 'generic',
    isas: ['generic'],
    hasCuda,
    cudaDevices,
  };
}

describe('resolveDevice', () => {
  it('takes the GPU if it can be used, else the CPU', () => {
    for (const wanted of ['auto', undefined] as const) {
      expect(resolveDevice(wanted, machine(true, T4))).toBe('cuda');
      expect(resolveDevice(wanted, machine(true, P100, T4))).toBe('cpu');
      expect(resolveDevice(wanted, machine(true))).toBe('cpu');
      expect(resolveDevice(wanted, machine(false))).toBe('cpu');
    }
  });

  it('gives what was asked for, if it is there', () => {
    expect(resolveDevice('cuda', machine(true, T4, P100))).toBe('cuda');
    expect(resolveDevice('cpu', machine(true, T4))).toBe('cpu');
    expect(resolveDevice('emulated', machine(false))).toBe('emulated');
  });

  it.each([
    ['a build without CUDA', machine(false), /built without it; install the CUDA toolkit/],
    ['no driver or no GPU', machine(true), /got none; check the driver with `nvidia-smi`/],
    ['a GPU that is too old', machine(true, P100), /Tesla P100 of compute capability 6\.0; choose a GPU of 7\.5/],
  ])('says why there is no cuda: %s', (_, system, reason) => {
    const failure = (() => {
      try {
        return resolveDevice('cuda', system);
      } catch (error) {
        return error;
      }
    })();
    expect(failure).toBeInstanceOf(FlexplanError);
    expect((failure as FlexplanError).code).toBe('no-device');
    expect((failure as FlexplanError).message).toMatch(reason);
    expect((failure as FlexplanError).message).toMatch(/--device cpu or --device emulated$/);
  });
});

describe('deviceSettings', () => {
  it('asks no machine where the request says it all', async () => {
    expect(await deviceSettings({ device: 'emulated', gpuMemory: 1e9, linkBandwidth: 2e9 })).toEqual({
      device: 'emulated',
      capacityBytes: { gpu: 1e9 },
      linkBytesPerSecond: { cpuToGpu: 2e9, gpuToCpu: 2e9 },
    });
  });
});
