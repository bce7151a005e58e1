/** A finished run as a person reads it: predicted against measured. */
import {
  compareRun,
  formatError,
  formatValue,
  rowCells,
  tableHead,
  throughputRow,
  type ComparisonTable,
} from '../report/comparison.js';
import { sharedPrefixWords } from '../report/describe.js';
import type { RunDocument } from '../report/run-document.js';
import { heading, paragraphs, table } from './format.js';

function comparisonText(comparison: ComparisonTable): string {
  if (comparison.rows.length === 0) return '';
  const [, ...head] = tableHead(comparison);
  return table(
    [comparison.title.toLowerCase(), ...head],
    comparison.rows.map((row) => rowCells(row, comparison.unit)),
  );
}

export function runText(run: RunDocument, output: string): string {
  const throughput = throughputRow(run);
  const measured = formatValue(throughput.measured, 'tokensPerSecond');
  const predicted = formatValue(throughput.predicted, 'tokensPerSecond');
  const device = run.device === 'emulated' ? 'on an emulated GPU (its kernels run on the CPU)' : `on ${run.device}`;
  return paragraphs(
    heading(
      `${run.plan.model.name} ${device}: ${measured} measured, ${predicted} predicted (${formatError(throughput)})`,
    ),
    ...compareRun(run).map(comparisonText),
    sharedPrefixWords(run),
    `${run.numSequences} completions, ${run.genTokens} generated tokens: ${output}`,
  );
}
