/** One self-contained HTML page: charts embedded, no network, light and dark, readable without the pictures. */
import { compareRun, formatError, formatValue, rowCells, tableHead, throughputRow } from './comparison.js';
import type { ComparisonTable } from './comparison.js';
import { describeRun } from './describe.js';
import { STYLE } from './page-style.js';
import type { RunDocument } from './run-document.js';
import type { Theme } from './chart-config.js';

export interface ReportedRun {
  /** Stable name, also of the chart files. */
  readonly name: string;
  readonly run: RunDocument;
}

/** PNG of one table of one run. */
export type ChartImages = (table: ComparisonTable, theme: Theme) => Uint8Array;

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => ENTITIES[char]!);
}

function dataUrl(png: Uint8Array): string {
  return `data:image/png;base64,${Buffer.from(png).toString('base64')}`;
}

function htmlTable(head: readonly string[], rows: readonly (readonly string[])[], caption: string): string {
  const cells = (row: readonly string[]) =>
    row
      .map((cell, i) => (i === 0 ? `<th scope="row">${escapeHtml(cell)}</th>` : `<td>${escapeHtml(cell)}</td>`))
      .join('');
  const headCells = head.map((cell) => `<th scope="col">${escapeHtml(cell)}</th>`).join('');
  return `<table><caption class="unseen">${escapeHtml(caption)}</caption>
<thead><tr>${headCells}</tr></thead>
<tbody>${rows.map((row) => `<tr>${cells(row)}</tr>`).join('\n')}</tbody></table>`;
}

/** The table under the picture says the same, so the picture needs only its title as its text. */
function section(table: ComparisonTable, images: ChartImages): string {
  if (table.rows.length === 0) return '';
  const alt = escapeHtml(`${table.title}: predicted and measured, as bars; the numbers are in the table below.`);
  return `<section>
<h3>${escapeHtml(table.title)}</h3>
<p class="note">${escapeHtml(table.note)}</p>
<picture><source media="(prefers-color-scheme: dark)" srcset="${dataUrl(images(table, 'dark'))}">
<img alt="${alt}" src="${dataUrl(images(table, 'light'))}"></picture>
${htmlTable(
  tableHead(table),
  table.rows.map((row) => rowCells(row, table.unit)),
  table.title,
)}
</section>`;
}

function definitions(pairs: readonly (readonly [string, string])[]): string {
  return `<dl>${pairs.map(([term, text]) => `<dt>${escapeHtml(term)}</dt><dd>${escapeHtml(text)}</dd>`).join('\n')}</dl>`;
}

function runArticle({ name, run }: ReportedRun, images: ChartImages): string {
  const throughput = throughputRow(run);
  const emulated =
    run.device === 'emulated'
      ? '<p class="badge" role="note">Emulated GPU: the "GPU" is a capped region of RAM behind a rate-limited copy; its kernels ran on the CPU.</p>'
      : '';
  return `<article id="${escapeHtml(name)}">
<h2>${escapeHtml(name)}</h2>
${emulated}
<p class="headline"><strong>${formatValue(throughput.measured, 'tokensPerSecond')}</strong> measured,
<strong>${formatValue(throughput.predicted, 'tokensPerSecond')}</strong> predicted
<span class="error">(${escapeHtml(formatError(throughput))})</span></p>
${definitions(describeRun(run))}
${compareRun(run)
  .map((table) => section(table, images))
  .join('\n')}
<section><h3>Environment</h3>
${definitions(Object.entries(run.environment).map(([key, value]) => [key, String(value)]))}
</section>
</article>`;
}

function overview(runs: readonly ReportedRun[]): string {
  if (runs.length < 2) return '';
  const rows = runs.map(({ name, run }) => {
    const row = throughputRow(run);
    return [
      name,
      run.device === 'emulated' ? 'emulated GPU' : run.device,
      formatValue(row.predicted, 'tokensPerSecond'),
      formatValue(row.measured, 'tokensPerSecond'),
      formatError(row),
    ];
  });
  return `<section><h2>Generated tokens per second</h2>
${htmlTable(['run', 'device', 'predicted', 'measured', 'error'], rows, 'All runs')}</section>`;
}

/** The whole page. `imagesOf` renders the charts of one run. */
export function reportPage(runs: readonly ReportedRun[], imagesOf: (run: ReportedRun) => ChartImages): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>flexplan: predicted against measured</title>
<style>${STYLE}</style>
</head>
<body>
<main>
<h1>Predicted against measured</h1>
<p class="note">The prediction comes from the cost model and the hardware profile alone; the measurement is a real run.
Error = (predicted − measured) / measured.</p>
${overview(runs)}
${runs.map((run) => runArticle(run, imagesOf(run))).join('\n')}
</main>
</body>
</html>
`;
}
