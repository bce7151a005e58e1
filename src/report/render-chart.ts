/** Chart configurations -> PNG. The font travels with the package: without one, a bare machine draws no text at all. */
import { createRequire } from 'node:module';
import { ChartJSNodeCanvas } from 'chartjs-node-canvas';
import { CHART_WIDTH, chartConfig, chartHeight, FONT_FAMILY, PALETTES, type Theme } from './chart-config.js';
import type { ComparisonTable } from './comparison.js';

const require = createRequire(import.meta.url);
const FONT_WEIGHTS = [400, 700];

function createRenderer(height: number, backgroundColour: string): ChartJSNodeCanvas {
  const renderer = new ChartJSNodeCanvas({
    width: CHART_WIDTH,
    height,
    backgroundColour,
    chartCallback: (chartJs) => {
      chartJs.defaults.font.family = FONT_FAMILY;
    },
  });
  for (const weight of FONT_WEIGHTS)
    renderer.registerFont(require.resolve(`@fontsource/dejavu-sans/files/dejavu-sans-latin-${weight}-normal.woff2`), {
      family: FONT_FAMILY,
    });
  return renderer;
}

/** PNG of one table, CHART_WIDTH x chartHeight(table) points at twice the pixels. */
export function renderChart(table: ComparisonTable, theme: Theme, heading?: string): Buffer {
  const renderer = createRenderer(chartHeight(table), PALETTES[theme].background);
  return renderer.renderToBufferSync(chartConfig(table, theme, heading), 'image/png');
}
