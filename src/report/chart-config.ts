/** Chart configurations of a run, as plain data: what is drawn, apart from how it is rendered. */
import type { ChartConfiguration, ChartDataset, Plugin } from 'chart.js';
import { formatValue, type ComparisonTable, type Unit } from './comparison.js';
import { GIB, KIB, MIB, MILLISECONDS_PER_SECOND } from '../units.js';

export type Theme = 'light' | 'dark';

interface Palette {
  readonly background: string;
  readonly text: string;
  readonly grid: string;
  readonly predicted: string;
  readonly measured: string;
}

/** Grey for what was said, blue for what was seen: they differ in lightness too, for eyes that see no colour. */
export const PALETTES: Readonly<Record<Theme, Palette>> = {
  light: {
    background: '#ffffff',
    text: '#1f2933',
    grid: '#e4e7eb',
    predicted: '#b0bac6',
    measured: '#1d4ed8',
  },
  dark: {
    background: '#14181d',
    text: '#e6eaef',
    grid: '#2c343d',
    predicted: '#6b7785',
    measured: '#7aa2ff',
  },
};

export const CHART_WIDTH = 760;
/** Room to the right of the longest bar for its label. */
const LABEL_ROOM = 130;
const LABEL_GAP = 6;
const PERCENT = 100;
/** Sharp on dense screens. */
export const PIXEL_RATIO = 2;
export const FONT_FAMILY = 'FlexFont';
const ROW_HEIGHT = 38;
const FRAME_HEIGHT = 135;

/** Points: one band per row. */
export function chartHeight(table: ComparisonTable): number {
  return FRAME_HEIGHT + ROW_HEIGHT * table.rows.length;
}

/** The unit in which the largest value reads best: divisor and name. */
export function axisScale(largest: number, unit: Unit): { readonly divisor: number; readonly name: string } {
  if (unit === 'tokensPerSecond') return { divisor: 1, name: 'tokens per second' };
  if (unit === 'seconds')
    return largest < 1
      ? { divisor: 1 / MILLISECONDS_PER_SECOND, name: 'milliseconds' }
      : { divisor: 1, name: 'seconds' };
  if (largest >= GIB) return { divisor: GIB, name: 'GiB' };
  return largest >= MIB ? { divisor: MIB, name: 'MiB' } : { divisor: KIB, name: 'KiB' };
}

interface Bar {
  /** On the chart's axis. */
  readonly length: number;
  /** Written behind its end. */
  readonly label: string;
}

interface Drawing {
  readonly axis: string;
  readonly predicted: readonly Bar[];
  readonly measured: readonly Bar[];
}

/** Values with a cap are drawn as a share of it: caps of different tiers lie orders of magnitude apart. */
function draw(table: ComparisonTable): Drawing {
  const capped = table.rows.some((row) => row.limit !== undefined);
  const largest = Math.max(...table.rows.flatMap((row) => [row.predicted, row.measured]));
  const scale = axisScale(largest, table.unit);
  const bar = (value: number, limit: number | undefined): Bar => ({
    length: capped ? (value / limit!) * PERCENT : value / scale.divisor,
    label: formatValue(value, table.unit) + (capped ? ` of ${formatValue(limit!, table.unit)}` : ''),
  });
  return {
    axis: capped ? 'percent of the cap' : scale.name,
    predicted: table.rows.map((row) => bar(row.predicted, row.limit)),
    measured: table.rows.map((row) => bar(row.measured, row.limit)),
  };
}

/** What labels need of a canvas: the DOM's types are not loaded in Node. */
interface TextContext {
  fillStyle: string;
  font: string;
  textBaseline: 'middle';
  save(): void;
  restore(): void;
  fillText(text: string, x: number, y: number): void;
}

function barLabels(series: readonly (readonly Bar[])[], color: string): Plugin<'bar'> {
  return {
    id: 'barLabels',
    afterDatasetsDraw(chart) {
      const ctx = chart.ctx as unknown as TextContext;
      ctx.save();
      ctx.fillStyle = color;
      ctx.font = `11px ${FONT_FAMILY}`;
      ctx.textBaseline = 'middle';
      series.forEach((bars, i) =>
        chart.getDatasetMeta(i).data.forEach(({ x, y }, row) => ctx.fillText(bars[row]!.label, x + LABEL_GAP, y)),
      );
      ctx.restore();
    },
  };
}

function dataset(label: string, bars: readonly Bar[], backgroundColor: string): ChartDataset<'bar'> {
  return {
    label,
    backgroundColor,
    data: bars.map(({ length }) => length),
    barPercentage: 0.92,
    categoryPercentage: 0.74,
    borderRadius: 2,
  };
}

/** Horizontal bars, one band per row of the table: predicted above measured. An empty heading is left out. */
export function chartConfig(table: ComparisonTable, theme: Theme, heading = table.title): ChartConfiguration<'bar'> {
  const { text, grid, ...colors } = PALETTES[theme];
  const { axis, predicted, measured } = draw(table);
  return {
    type: 'bar',
    data: {
      labels: table.rows.map(({ label }) => label),
      datasets: [dataset('predicted', predicted, colors.predicted), dataset('measured', measured, colors.measured)],
    },
    plugins: [barLabels([predicted, measured], text)],
    options: {
      indexAxis: 'y',
      responsive: false,
      animation: false,
      devicePixelRatio: PIXEL_RATIO,
      layout: { padding: { left: 12, right: LABEL_ROOM, top: 10, bottom: 10 } },
      plugins: {
        title: {
          display: heading !== '',
          text: heading,
          color: text,
          align: 'start',
          font: { size: 15, weight: 'bold' },
        },
        legend: { position: 'top', align: 'start', labels: { color: text, boxWidth: 14, boxHeight: 10 } },
      },
      scales: {
        x: {
          beginAtZero: true,
          title: { display: true, text: axis, color: text },
          ticks: { color: text, maxTicksLimit: 8 },
          grid: { color: grid },
        },
        y: { ticks: { color: text }, grid: { display: false } },
      },
    },
  };
}
