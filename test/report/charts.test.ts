import { describe, expect, it } from 'vitest';
import { axisScale, CHART_WIDTH, chartConfig, chartHeight, PIXEL_RATIO } from '../../src/report/chart-config.js';
import { compareRun } from '../../src/report/comparison.js';
import { renderChart } from '../../src/report/render-chart.js';
import { sampleRun } from './sample-run.js';

const tables = compareRun(sampleRun);
const PNG_SIGNATURE = '89504e470d0a1a0a';

describe('charts', () => {
  it.each(tables.map((table) => [table.id, table] as const))('draws %s as a PNG of the size it says', (_, table) => {
    const light = renderChart(table, 'light');
    expect(light.subarray(0, 8).toString('hex')).toBe(PNG_SIGNATURE);
    expect(light.readUInt32BE(16)).toBe(CHART_WIDTH * PIXEL_RATIO);
    expect(light.readUInt32BE(20)).toBe(chartHeight(table) * PIXEL_RATIO);
    expect(renderChart(table, 'dark').equals(light)).toBe(false);
  });

  it('draws the same picture twice from the same numbers, and another from others', () => {
    const table = tables[0]!;
    const other = { ...table, rows: table.rows.map((row) => ({ ...row, measured: row.measured * 2 })) };
    expect(renderChart(table, 'light').equals(renderChart(table, 'light'))).toBe(true);
    expect(renderChart(table, 'light').equals(renderChart(other, 'light'))).toBe(false);
  });

  it('draws text', () => {
    const titled = renderChart(tables[0]!, 'light', 'A long title with letters');
    expect(titled.equals(renderChart(tables[0]!, 'light', ' '))).toBe(false);
  });

  it('draws peaks as shares of their caps and everything else in its unit', () => {
    const memory = chartConfig(
      tables.find(({ id }) => id === 'memory')!,
      'light',
    );
    expect(memory.data.datasets[0]!.data[0]).toBeCloseTo((3_900_000 / (4 * 2 ** 20)) * 100, 9);
    const time = chartConfig(
      tables.find(({ id }) => id === 'time')!,
      'light',
    );
    expect(time.data.datasets.map(({ data }) => data[1])).toEqual([1.5, 1.6]);
  });

  it.each([
    [0.5, 'seconds', 'milliseconds'],
    [2, 'seconds', 'seconds'],
    [5e9, 'bytes', 'GiB'],
    [5e6, 'bytes', 'MiB'],
    [5e3, 'bytes', 'KiB'],
  ] as const)('reads %d %s in %s', (largest, unit, name) => {
    expect(axisScale(largest, unit).name).toBe(name);
  });
});
