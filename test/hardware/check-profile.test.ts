import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { capacityBytes, checkHardwareProfile, linkRate, withCapacity } from '../../src/hardware/check-profile.js';

const folder = new URL('../../hardware-profiles/', import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
const read = (name: string): Record<string, any> => JSON.parse(readFileSync(new URL(name, folder), 'utf8'));

describe('checkHardwareProfile', () => {
  it.each(files)('accepts %s as it is', (name) => {
    const document = read(name);
    expect(checkHardwareProfile(document)).toEqual(document);
  });

  it.each<[string, (profile: Record<string, any>) => void]>([
    [
      '"links.cpuToGpu.bytesPerSecond.value" of the hardware profile to be > 0, got 0',
      (p) => (p.links.cpuToGpu.bytesPerSecond.value = 0),
    ],
    ['"memory.cpuBytes" in the hardware profile, got none', (p) => delete p.memory.cpuBytes],
    ['only known fields in the hardware profile, got "compute.gpu.matmull"', (p) => (p.compute.gpu.matmull = [])],
    ['"device" of the hardware profile to be one of "cuda", "cpu", "emulated", got "tpu"', (p) => (p.device = 'tpu')],
    ['"schemaVersion" of the hardware profile to be 1, got 2', (p) => (p.schemaVersion = 2)],
    ['"compute.gpu.matmul.1.tokens" to be more than', (p) => (p.compute.gpu.matmul[1].tokens = 1)],
    ['"compute.gpu" for device "cuda", got none', (p) => delete p.compute.gpu],
    ['"memory.gpuBytes" for device "cuda", got none', (p) => delete p.memory.gpuBytes],
    ['"taskSeconds.source" of the hardware profile to be one of', (p) => (p.taskSeconds.source = 'guess')],
    ['to be of type object, got "fast"', (p) => (p.compute = 'fast')],
  ])('refuses with the path: %s', (message, spoil) => {
    const document = read('t4.json');
    spoil(document);
    expect(() => checkHardwareProfile(document)).toThrow(message);
  });

  it('has no gpu tier and no gpu links on a cpu device', () => {
    const profile = checkHardwareProfile(read('cpu-desktop.json'));
    expect(capacityBytes(profile).gpu).toBe(0);
    expect(linkRate(profile, 'cpuToGpu')).toBeUndefined();
    expect(linkRate(profile, 'diskToCpu')).toBeDefined();
  });

  it('caps tiers without touching the rest', () => {
    const profile = checkHardwareProfile(read('t4.json'));
    const capped = withCapacity(profile, { cpu: 5 });
    expect(capacityBytes(capped)).toEqual({ ...capacityBytes(profile), cpu: 5 });
    expect(capped.links).toEqual(profile.links);
  });
});
