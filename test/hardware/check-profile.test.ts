import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { capacityBytes, checkHardwareProfile, linkRate, withCapacity } from '../../src/hardware/check-profile.js';

const folder = new URL('../../hardware-profiles/', import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
const read = (name: string): unknown => JSON.parse(readFileSync(new URL(name, folder), 'utf8'));

/** t4.json with the field at `path` changed (undefined: taken away). */
function spoiled(path: string, value: unknown): unknown {
  const document = read('t4.json');
  const parts = path.split('.');
  const last = parts.pop()!;
  const holder = parts.reduce((at, part) => at[part] as Record<string, unknown>, document as Record<string, unknown>);
  holder[last] = value;
  return JSON.parse(JSON.stringify(document));
}

describe('checkHardwareProfile', () => {
  it.each(files)('accepts %s as it is', (name) => {
    const document = read(name);
    expect(checkHardwareProfile(document)).toEqual(document);
  });

  it.each<[string, string, unknown]>([
    [
      '"links.cpuToGpu.bytesPerSecond.value" of the hardware profile to be > 0, got 0',
      'links.cpuToGpu.bytesPerSecond.value',
      0,
    ],
    ['"memory.cpuBytes" in the hardware profile, got none', 'memory.cpuBytes', undefined],
    ['only known fields in the hardware profile, got "compute.gpu.matmull"', 'compute.gpu.matmull', []],
    ['"device" of the hardware profile to be one of "cuda", "cpu", "emulated", got "tpu"', 'device', 'tpu'],
    ['"schemaVersion" of the hardware profile to be 1, got 2', 'schemaVersion', 2],
    ['"compute.gpu.matmul.1.tokens" to be more than', 'compute.gpu.matmul.1.tokens', 1],
    [
      '"compute.gpu.narrowMatmul.wideRows" to be more than 8, got 8',
      'compute.gpu.narrowMatmul',
      { rows: 8, wideRows: 8, points: [{ tokens: 1, flopsPerSecond: { value: 1, source: 'set' } }] },
    ],
    ['"compute.gpu" for device "cuda", got none', 'compute.gpu', undefined],
    ['"memory.gpuBytes" for device "cuda", got none', 'memory.gpuBytes', undefined],
    ['"taskSeconds.source" of the hardware profile to be one of', 'taskSeconds.source', 'guess'],
    ['to be of type object, got "fast"', 'compute', 'fast'],
  ])('refuses with the path: %s', (message, path, value) => {
    expect(() => checkHardwareProfile(spoiled(path, value))).toThrow(message);
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
