/** A validation as a person reads it: one row for each policy. */
import { formatError, formatValue, throughputRow } from '../report/comparison.js';
import { STAGE_WORDS, heading, paragraphs, percent, table } from './format.js';
import type { ValidationDocument } from './validation-document.js';

export function validationText(validation: ValidationDocument, written: readonly string[]): string {
  const { runs, model, hardware, device, workload, error, calibration } = validation;
  const rows = runs.map(({ name, run }) => {
    const throughput = throughputRow(run);
    const of = (phase: 'prefillSeconds' | 'decodeSeconds') =>
      formatError({ label: phase, predicted: run.predicted[phase], measured: run[phase] });
    return [
      name,
      formatValue(throughput.predicted, 'tokensPerSecond'),
      formatValue(throughput.measured, 'tokensPerSecond'),
      formatError(throughput),
      of('prefillSeconds'),
      of('decodeSeconds'),
      STAGE_WORDS[run.predicted.bottleneck.decode],
    ];
  });
  const machine = device === 'emulated' ? 'an emulated GPU (its kernels run on the CPU)' : device;
  return paragraphs(
    heading(`${model.name} on ${machine}, profile ${hardware.name}: median error ${percent(error.median)}`),
    `${workload.numSequences} sequences of ${workload.promptTokens} prompt tokens, ${workload.genTokens} generated for each`,
    table(['policy', 'predicted', 'measured', 'error', 'prefill', 'decode', 'decode is held up by'], rows),
    `Errors of throughput: median ${percent(error.median)}, worst ${percent(error.worst)}.`,
    calibration &&
      `Fitted to these runs: median ${percent(calibration.error.median)}, worst ${percent(calibration.error.worst)}` +
        ` of prefill and decode seconds. Such a profile is right for machines and jobs like these.`,
    written.length > 0 && `Written: ${written.join(', ')}`,
  );
}
