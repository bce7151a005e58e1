/** Renders the page and its charts and writes them. */
import { join } from 'node:path';
import { compareRun } from '../report/comparison.js';
import { reportPage, type ReportedRun } from '../report/page.js';
import { renderChart } from '../report/render-chart.js';
import { writeFileAtomic } from './files.js';

/** Returns what was written, the page first. */
export async function writeReport(runs: readonly ReportedRun[], folder: string): Promise<string[]> {
  const page = join(folder, 'index.html');
  const charts: string[] = [];
  for (const { name, run } of runs)
    for (const table of compareRun(run).filter(({ rows }) => rows.length > 0)) {
      const path = join(folder, `${name}-${table.id}.png`);
      writeFileAtomic(path, renderChart(table, 'light', `${table.title}: ${name}`));
      charts.push(path);
    }
  writeFileAtomic(
    page,
    reportPage(runs, () => (table, theme) => renderChart(table, theme, '')),
  );
  return [page, ...charts];
}
