/** What `validate --json` prints. */
import type { Calibration, FittedRow } from '../cost-model/calibration.js';
import type { RunDocument } from '../report/run-document.js';
import type { ValidatedPolicy } from './validation-job.js';

/** Of the absolute relative errors. */
interface ErrorSummary {
  readonly median: number;
  readonly worst: number;
}

export interface ValidationDocument {
  readonly schemaVersion: 1;
  readonly source: 'validated';
  readonly model: { readonly name: string };
  readonly hardware: { readonly name: string };
  readonly device: RunDocument['device'];
  readonly workload: RunDocument['plan']['workload'];
  readonly runs: readonly ValidatedPolicy[];
  /** Of the throughput, over all runs. */
  readonly error: ErrorSummary;
  /** With `--calibrate`: the runs' prefill and decode seconds under the fitted profile. */
  readonly calibration?: { readonly rows: readonly FittedRow[]; readonly error: ErrorSummary };
}

export function validationDocument(runs: readonly ValidatedPolicy[], fitted?: Calibration): ValidationDocument {
  const { plan, device } = runs[0]!.run;
  return {
    schemaVersion: 1,
    source: 'validated',
    model: { name: plan.model.name },
    hardware: { name: plan.hardware.name },
    device,
    workload: plan.workload,
    runs,
    error: summary(runs.map(({ run }) => run.error.genTokensPerSecond)),
    ...(fitted && { calibration: { rows: fitted.rows, error: summary(fitted.rows.map(({ error }) => error)) } }),
  };
}

function summary(errors: readonly number[]): ErrorSummary {
  const sorted = errors.map(Math.abs).sort((a, b) => a - b);
  const median = (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
  return { median, worst: sorted[sorted.length - 1]! };
}
