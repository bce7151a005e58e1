import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  calibrate,
  comparedRow,
  quantityAt,
  type Calibration,
  type FreeConstant,
} from '../../src/cost-model/calibration.js';
import { logError, predictObservation, type Observation } from '../../src/cost-model/observations.js';
import { readPublishedRows } from '../../src/cost-model/published-rows.js';
import { checkHardwareProfile } from '../../src/hardware/check-profile.js';
import type { HardwareProfile } from '../../src/hardware/hardware-profile.js';

interface Rows {
  rows: Record<string, unknown>[];
}
const read = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../../hardware-profiles/${name}.json`, import.meta.url), 'utf8'));
const published = readPublishedRows(read('calibration/t4-published'));
const start = checkHardwareProfile(read('calibration/t4-start'));
const t4 = checkHardwareProfile(read('t4'));

/** A copy of a profile with one quantity scaled. */
function scaled(profile: HardwareProfile, path: string, factor: number): HardwareProfile {
  const copy = structuredClone(profile);
  const quantity = quantityAt(copy, path) as { value: number };
  quantity.value *= factor;
  return copy;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

describe('calibrate', () => {
  const free: readonly FreeConstant[] = [
    { path: 'links.cpuToGpu.bytesPerSecond', least: 1e9, most: 50e9, doubt: 3 },
    { path: 'links.diskToCpu.bytesPerSecond', least: 1e8, most: 20e9, doubt: 3 },
    { path: 'compute.cpu.attentionDecodeBytesPerSecond', least: 1e9, most: 200e9, doubt: 3 },
    { path: 'compute.gpu.matmul.1.flopsPerSecond', least: 1e12, most: 60e12, doubt: 3 },
  ];

  it('finds the constants of the machine that made the observations', async () => {
    const seen = published.fit.map((o) => ({ ...o, value: predictObservation(t4, o), resolution: 0 }));
    const displaced = free.reduce((profile, { path }, c) => scaled(profile, path, c % 2 ? 1.5 : 0.7), t4);
    const { hardware, rows } = await calibrate(displaced, seen, free);
    for (const { path } of free) {
      expect(quantityAt(hardware, path).value / quantityAt(t4, path).value).toBeCloseTo(1, 2);
      expect(quantityAt(hardware, path).source).toBe('fitted');
    }
    expect(Math.max(...rows.map(({ error }) => Math.abs(error)))).toBeLessThan(0.01);
  });

  it('stays within physical limits and by its start where the runs say nothing', async () => {
    const onGpu = published.fit.filter(({ name }) => name.startsWith('6.7B'));
    const tight = free.map((constant) =>
      constant.path.includes('matmul') ? { ...constant, most: 15e12 } : { ...constant, doubt: 0.5 },
    );
    const { hardware } = await calibrate(scaled(t4, 'compute.gpu.matmul.1.flopsPerSecond', 0.5), onGpu, tight);
    expect(quantityAt(hardware, 'compute.gpu.matmul.1.flopsPerSecond').value).toBeLessThanOrEqual(15e12);
    const disk = quantityAt(hardware, 'links.diskToCpu.bytesPerSecond');
    expect(disk.value / quantityAt(t4, 'links.diskToCpu.bytesPerSecond').value).toBeCloseTo(1, 3);
    expect(disk.spread).toBeGreaterThan(0.5);
  });

  it('refuses a path that leads to no quantity', async () => {
    const [unknown] = [{ ...free[0]!, path: 'links.cpuToGpu.speed' }];
    await expect(calibrate(t4, published.fit, [unknown])).rejects.toThrow('"links.cpuToGpu.speed"');
  });
});

describe('the T4 of the FlexGen paper', () => {
  let refitted: Calibration;
  beforeAll(async () => {
    refitted = await calibrate(start, published.fit, published.free);
  });

  it('is what `npm run calibrate:t4` writes from the published rows', () => {
    const moved = [...published.fit, ...published.holdOut].map(
      (o) => predictObservation(t4, o) / predictObservation(refitted.hardware, o) - 1,
    );
    expect(Math.max(...moved.map(Math.abs))).toBeLessThan(0.02);
  });

  const errors = (observations: readonly Observation[]) => observations.map((o) => Math.abs(comparedRow(t4, o).error));

  it('predicts the rows of the fit: median error 8 % at most, none above 25 %', () => {
    expect(published.fit).toHaveLength(17);
    expect(median(errors(published.fit))).toBeLessThan(0.08);
    expect(Math.max(...errors(published.fit))).toBeLessThan(0.25);
  });

  it('predicts the rows of other lengths and batch shapes that the fit has not seen', () => {
    expect(published.holdOut).toHaveLength(6);
    expect(median(errors(published.holdOut))).toBeLessThan(0.1);
    expect(Math.max(...errors(published.holdOut))).toBeLessThan(0.25);
  });

  it('covers GPU, CPU and disk, with and without compression, fitted and held out', () => {
    for (const rows of [published.fit, published.holdOut]) {
      const regimes = rows.map(({ policy: { placement, weightBits, kvCacheBits } }) => {
        const lowest = placement.weights.disk > 0 ? 'disk' : placement.weights.cpu > 0 ? 'cpu' : 'gpu';
        return `${lowest} ${weightBits}/${kvCacheBits}`;
      });
      expect(new Set(regimes)).toEqual(
        new Set(['gpu 16/16', 'gpu 4/4', 'cpu 16/16', 'cpu 16/4', 'cpu 4/4', 'disk 16/16']),
      );
    }
  });

  it('keeps every fitted constant inside its physical limits, with fewer of them than rows', () => {
    expect(published.free.length).toBeLessThan(published.fit.length);
    for (const { path, least, most } of published.free) {
      const { value, source, spread } = quantityAt(t4, path);
      expect(value).toBeGreaterThanOrEqual(least * 0.999);
      expect(value).toBeLessThanOrEqual(most * 1.001);
      expect(source).toBe('fitted');
      expect(spread).toBeGreaterThan(0);
    }
  });

  it('would be caught with a disk of half the speed', () => {
    const slow = scaled(t4, 'links.diskToCpu.bytesPerSecond', 0.5);
    const worst = Math.max(...published.fit.map((o) => Math.abs(comparedRow(slow, o).error)));
    expect(worst).toBeGreaterThan(0.25);
  });

  it('moves KV cache at its own rate, weights at the common one', () => {
    const slow = scaled(t4, 'links.cpuToGpu.kvCacheBytesPerSecond', 0.5);
    const named = (name: string) => published.fit.find((o) => o.name === name)!;
    const change = (name: string) => predictObservation(slow, named(name)) / predictObservation(t4, named(name));
    expect(change('30B, no CPU attention')).toBeLessThan(0.8);
    expect(change("30B, DeepSpeed's policy")).toBe(1);
  });
});

/**
 * What FlexGen's engine makes of a weight policy: within each of its layers a matrix goes to the tier whose interval of
 * the percentages, disk first and GPU last, holds the middle of the matrix. Attention is four equal matrices (a third
 * of the layer's bytes), the MLP two; biases behind them draw each middle down a little, so one on a boundary falls
 * below it.
 */
function placedByFlexGen(gpu: number, cpu: number): [gpu: number, cpu: number] {
  const disk = 100 - gpu - cpu;
  const middles = { 12.5: 1 / 12, 37.5: 1 / 12, 62.5: 1 / 12, 87.5: 1 / 12, 25: 1 / 3, 75: 1 / 3 };
  const placed = { gpu: 0, cpu: 0, disk: 0 };
  for (const [middle, share] of Object.entries(middles)) {
    const at = Number(middle);
    placed[at <= disk ? 'disk' : at <= disk + cpu ? 'cpu' : 'gpu'] += 100 * share;
  }
  return [placed.gpu, placed.cpu];
}

describe('the published rows', () => {
  it.each([
    [20, 80, 8.3, 91.7],
    [25, 75, 8.3, 91.7],
    [30, 70, 41.7, 58.3],
    [10, 90, 0, 100],
    [50, 50, 50, 50],
    [0, 50, 0, 50],
  ])('place %d/%d as FlexGen does: %d/%d', (gpu, cpu, placedGpu, placedCpu) => {
    const [onGpu, onCpu] = placedByFlexGen(gpu, cpu);
    expect(onGpu).toBeCloseTo(placedGpu, 1);
    expect(onCpu).toBeCloseTo(placedCpu, 1);
  });

  it('give the shares that were placed wherever these differ from what was asked', () => {
    const { rows } = read('calibration/t4-published') as { rows: { percent: number[]; asked?: number[] }[] };
    let different = 0;
    for (const { percent, asked = percent } of rows) {
      const [gpu, cpu] = placedByFlexGen(asked[0]!, asked[1]!);
      expect(percent[0]).toBeCloseTo(gpu, 3);
      expect(percent[1]).toBeCloseTo(cpu, 3);
      expect(percent.slice(2)).toEqual(asked.slice(2));
      if (percent[0] !== asked[0]) different++;
    }
    expect(different).toBe(5);
  });
});

describe('observations', () => {
  it('take a printed value as known to half of its last digit', () => {
    expect(logError(0.014, { value: 0.01, resolution: 0.01 })).toBe(0);
    expect(logError(0.03, { value: 0.01, resolution: 0.01 })).toBeCloseTo(Math.log(2), 12);
    expect(logError(0.5, { value: 1, resolution: 0 })).toBeCloseTo(-Math.log(2), 12);
  });

  it('project a run stopped early from its first decode steps', () => {
    const [whole] = published.fit.filter(({ decodeStepsTimed }) => decodeStepsTimed === 1);
    const decodeSeconds = (decodeStepsTimed: number) =>
      predictObservation(t4, { ...whole!, decodeStepsTimed, quantity: 'decodeSeconds' });
    expect(decodeSeconds(1)).toBeLessThan(decodeSeconds(31));
    expect(decodeSeconds(1)).toBeGreaterThan(0.9 * decodeSeconds(31));
  });

  it('count the tokens of sequences of different lengths', () => {
    const [run] = published.fit;
    const sequences = [
      { promptTokens: 512, genTokens: 32 },
      { promptTokens: 100, genTokens: 8 },
    ];
    const mixed = { ...run!, workload: { promptTokens: 512, genTokens: 32, sequences } };
    const ask = (quantity: Observation['quantity']) => predictObservation(t4, { ...mixed, quantity });
    expect(ask('genTokensPerSecond') * ask('totalSeconds')).toBeCloseTo(40, 6);
    expect(ask('decodeTokensPerSecond') * ask('decodeSeconds')).toBeCloseTo(38, 6);
    expect(ask('totalSeconds')).toBeCloseTo(ask('prefillSeconds') + ask('decodeSeconds'), 9);
  });

  it.each([
    ['"rows.0.use"', (row: Rows['rows'][0]) => (row['use'] = 'maybe')],
    ['"rows.0.speed"', (row: Rows['rows'][0]) => (row['speed'] = 1)],
    ['"30B, s 512" twice', (row: Rows['rows'][0]) => (row['name'] = '30B, s 512')],
    ['got "facebook/opt-31b"', (row: Rows['rows'][0]) => (row['model'] = 'facebook/opt-31b')],
  ])('are refused where the document is wrong: %s', (message, spoil) => {
    const document = read('calibration/t4-published') as Rows;
    spoil(document.rows[0]!);
    expect(() => readPublishedRows(document)).toThrow(message);
  });
});
