import { existsSync, readdirSync } from 'node:fs';
import { basename, join, relative } from 'node:path';
import { FlexplanError } from '../../errors.js';
import { defineCommand, type Context } from '../command.js';
import { heading, paragraphs, table } from '../format.js';
import { required, text } from '../options.js';

const options = {
  from: text('--from <dir>', 'folder with documents of `flexplan run --json` (default: reports)'),
  out: required(text('--out <dir>', 'where to write index.html and the charts')),
};

/** Every JSON document below the folder, in a stable order; those that are no runs are named and left out. */
async function readRuns(folder: string, context: Context) {
  const { checkRunDocument } = await import('../../report/run-document.js');
  const { checked, readJson } = await import('../files.js');
  if (!existsSync(folder))
    throw new FlexplanError(
      'bad-input',
      `expected a folder of results, got "${folder}", which is not there; use --from`,
    );
  const paths = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.json'))
    .sort();
  return paths.flatMap((relativePath) => {
    const path = join(folder, relativePath);
    const document = readJson(path, 'a result') as { source?: unknown } | null;
    if (document?.source === 'measured')
      return [{ name: basename(path, '.json'), run: checked(path, () => checkRunDocument(document)) }];
    context.note(`${path}: not a measured run, left out`);
    return [];
  });
}

export const reportCommand = defineCommand({
  name: 'report',
  summary: 'draw tables and charts from stored results',
  example: 'flexplan report --from demo-out --out demo-out/report',
  options,
  async run({ from = 'reports', out }, context) {
    const runs = await readRuns(from, context);
    if (runs.length === 0)
      throw new FlexplanError(
        'bad-input',
        `expected results of \`flexplan run --json\` in ${from}, got none; store one there first`,
      );
    const { writeReport } = await import('../write-report.js');
    const files = await writeReport(runs, out);
    const { formatError, formatValue, throughputRow } = await import('../../report/comparison.js');
    const rows = runs.map(({ name, run }) => {
      const row = throughputRow(run);
      return [
        name,
        formatValue(row.predicted, 'tokensPerSecond'),
        formatValue(row.measured, 'tokensPerSecond'),
        formatError(row),
      ];
    });
    return {
      document: { schemaVersion: 1, files: files.map((path) => relative('.', path)) },
      text: () =>
        paragraphs(
          heading('Generated tokens per second'),
          table(['run', 'predicted', 'measured', 'error'], rows),
          `Page: ${files[0]}`,
        ),
    };
  },
});
