import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { estimate } from '../../src/cost-model/estimate.js';
import { checkHardwareProfile, deviceRates, hasGpuTier } from '../../src/hardware/check-profile.js';
import type { ComputeRates, Quantity } from '../../src/hardware/hardware-profile.js';
import { findModel } from '../../src/models/registry.js';
import { parameterCount } from '../../src/models/tensors.js';
import { policyFromPercent } from '../../src/policy/check-policy.js';

const folder = new URL('../../hardware-profiles/', import.meta.url);
const profiles = readdirSync(folder)
  .filter((file) => file.endsWith('.json'))
  .map((file) => ({ file, profile: checkHardwareProfile(JSON.parse(readFileSync(new URL(file, folder), 'utf8'))) }));

/** Every `{ value, source }` of a document with its path. */
function* quantities(node: object, path = ''): Generator<readonly [path: string, quantity: Quantity]> {
  if ('value' in node && 'source' in node) yield [path, node as Quantity];
  else
    for (const [key, child] of Object.entries(node) as [string, unknown][])
      if (typeof child === 'object' && child !== null) yield* quantities(child, `${path}/${key}`);
}

const CUDA = profiles.filter(({ profile }) => profile.device === 'cuda');

describe('the profiles that come with the package', () => {
  it('cover data centres, desktops and laptops, with and without a GPU', () => {
    expect(profiles.length).toBeGreaterThanOrEqual(12);
    const names = profiles.map(({ profile }) => profile.name);
    const wanted = ['t4', 'rtx-3090', 'rtx-4090', 'rtx-5090', 'a10', 'a100-40gb', 'a100-80gb', 'h100'];
    expect(names).toEqual(expect.arrayContaining([...wanted, 'rtx-4060-laptop', 'cpu-desktop', 'cpu-server']));
  });

  it.each(profiles)(
    '$file is named after its file, and says of every number where it comes from',
    ({ file, profile }) => {
      expect(`${profile.name}.json`).toBe(file);
      const all = [...quantities(profile)];
      expect(all.length).toBeGreaterThan(15);
      for (const [path, { source, note }] of all) {
        expect(['measured', 'fitted', 'datasheet', 'paper'], path).toContain(source);
        expect(note ?? '', path).not.toBe('');
      }
    },
  );

  it.each(profiles)('$file claims no more than physics allows', ({ profile }) => {
    for (const rates of [profile.compute.gpu, profile.compute.cpu].filter((r) => r !== undefined)) {
      holdsRoofline(rates);
    }
    const { cpuToGpu, gpuToCpu, diskToCpu, cpuToDisk } = profile.links;
    for (const link of [cpuToGpu, gpuToCpu]) expect(link?.bytesPerSecond.value ?? 0).toBeLessThan(64e9);
    expect(cpuToDisk.bytesPerSecond.value).toBeLessThanOrEqual(diskToCpu.bytesPerSecond.value);
    expect(hasGpuTier(profile)).toBe(profile.memory.gpuBytes !== undefined);
  });

  it.each(CUDA)('$file decodes a model at most as fast as it reads the weights', ({ profile }) => {
    const model = findModel('facebook/opt-6.7b');
    const policy = policyFromPercent([100, 0, 100, 0, 100, 0], {
      gpuBatchSize: 1,
      numGpuBatches: 1,
      weightBits: 16,
      kvCacheBits: 16,
      quantGroupSize: 64,
      cpuAttentionFraction: 0,
      overlap: true,
    });
    const { decodeSeconds } = estimate(model, profile, { promptTokens: 128, genTokens: 33 }, policy);
    const readsPerSecond = deviceRates(profile).memoryBytesPerSecond.value / (2 * parameterCount(model));
    const stepsPerSecond = 32 / decodeSeconds;
    expect(stepsPerSecond).toBeLessThan(readsPerSecond);
    expect(stepsPerSecond).toBeGreaterThan(0.3 * readsPerSecond);
  });
});

/** Rates grow with the tokens, time per launch does too, and one token is never faster than reading the weights. */
function holdsRoofline({
  matmul,
  matmul4Bit,
  memoryBytesPerSecond,
  attentionDecodeBytesPerSecond,
}: ComputeRates): void {
  for (const [points, bytesPerWeight] of [
    [matmul, 2],
    [matmul4Bit ?? [], 36 / 64],
  ] as const) {
    const seconds = points.map(({ tokens, flopsPerSecond }) => (2 * tokens) / flopsPerSecond.value);
    points.forEach(({ flopsPerSecond }, p) => {
      expect(flopsPerSecond.value).toBeGreaterThanOrEqual(points[p - 1]?.flopsPerSecond.value ?? 0);
      expect(seconds[p]).toBeGreaterThanOrEqual((seconds[p - 1] ?? 0) * 0.999);
    });
    if (points[0]?.tokens === 1)
      expect(seconds[0]).toBeGreaterThanOrEqual((0.999 * bytesPerWeight) / memoryBytesPerSecond.value);
  }
  expect(attentionDecodeBytesPerSecond.value).toBeLessThanOrEqual(memoryBytesPerSecond.value);
}
