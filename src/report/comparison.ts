/** Predicted against measured, as tables of plain rows: the terminal, the page and the charts all read these. */
import { LINKS, STAGES, TIERS, type Device, type Phase, type StageName, type Tier } from '../tiers.js';
import { formatBytes, formatSeconds } from '../units.js';
import { relativeError, type RunDocument } from './run-document.js';

export type Unit = 'seconds' | 'bytes' | 'tokensPerSecond';

export interface ComparisonRow {
  readonly label: string;
  readonly predicted: number;
  readonly measured: number;
  /** What the value must stay under, where there is such a thing. */
  readonly limit?: number;
}

export interface ComparisonTable {
  readonly id: 'time' | 'stages' | 'traffic' | 'memory';
  readonly title: string;
  /** How to read it, one sentence. */
  readonly note: string;
  readonly unit: Unit;
  readonly rows: readonly ComparisonRow[];
}

const PHASES: readonly Phase[] = ['prefill', 'decode'];

const STAGE_LABELS: Readonly<Record<StageName, string>> = {
  compute: 'compute',
  cpuAttention: 'CPU attention',
  cpuToGpu: 'RAM → GPU',
  gpuToCpu: 'GPU → RAM',
  diskToCpu: 'disk → RAM',
  cpuToDisk: 'RAM → disk',
};

/** `GPU` where there is one; an emulated one always says so. */
export function tierLabel(tier: Tier, device: Device): string {
  if (tier === 'cpu') return 'RAM';
  if (tier === 'disk') return 'disk';
  return device === 'emulated' ? 'emulated GPU' : 'GPU';
}

export function formatValue(value: number, unit: Unit): string {
  if (unit === 'seconds') return value === 0 ? '0' : formatSeconds(value);
  if (unit === 'bytes') return value === 0 ? '0' : formatBytes(value);
  return `${Number(value.toPrecision(3)).toLocaleString('en-US')} tok/s`;
}

/** `+3.1 %`; a dash where nothing was predicted and nothing measured. */
export function formatError({ predicted, measured }: ComparisonRow): string {
  if (predicted === 0 && measured === 0) return '–';
  if (measured === 0) return 'not seen';
  const error = relativeError(predicted, measured) * 100;
  return `${error < 0 ? '−' : '+'}${Math.abs(error).toFixed(1)} %`;
}

function timeTable(run: RunDocument): ComparisonTable {
  return {
    id: 'time',
    title: 'Time per phase',
    note: 'Wall-clock seconds of the whole job. Error = (predicted − measured) / measured.',
    unit: 'seconds',
    rows: [
      { label: 'prefill', predicted: run.predicted.prefillSeconds, measured: run.prefillSeconds },
      { label: 'decode', predicted: run.predicted.decodeSeconds, measured: run.decodeSeconds },
      { label: 'total', predicted: run.predicted.totalSeconds, measured: run.totalSeconds },
    ],
  };
}

/** One row per (phase, name) with something in it on either side. */
function phaseRows<Name extends StageName>(
  names: readonly Name[],
  predicted: Readonly<Record<Phase, Readonly<Record<Name, number>>>>,
  measured: Readonly<Record<Phase, Readonly<Record<Name, number>>>>,
): ComparisonRow[] {
  return PHASES.flatMap((phase) =>
    names.map((name) => ({
      label: `${phase}: ${STAGE_LABELS[name]}`,
      predicted: predicted[phase][name],
      measured: measured[phase][name],
    })),
  ).filter((row) => row.predicted > 0 || row.measured > 0);
}

function memoryTable(run: RunDocument): ComparisonTable {
  return {
    id: 'memory',
    title: 'Peak memory per tier',
    note: 'The prediction must never be below what the engine took, and both stay under the cap.',
    unit: 'bytes',
    rows: TIERS.filter((tier) => run.capacityBytes[tier] > 0).map((tier) => ({
      label: tierLabel(tier, run.device),
      predicted: run.predicted.peakBytes[tier],
      measured: run.peakBytes[tier],
      limit: run.capacityBytes[tier],
    })),
  };
}

/** All that a report sets side by side. Pure: the same document gives the same tables. */
export function compareRun(run: RunDocument): ComparisonTable[] {
  return [
    timeTable(run),
    {
      id: 'stages',
      title: 'Busy time per stage',
      note: 'Stages run at the same time, so these do not add up to the total; the longest one is the bottleneck.',
      unit: 'seconds',
      rows: phaseRows(STAGES, run.predicted.stageSeconds, run.stageSeconds),
    },
    {
      id: 'traffic',
      title: 'Bytes over each link',
      note: 'What the policy moves. Counted, not sampled.',
      unit: 'bytes',
      rows: phaseRows(LINKS, run.predicted.trafficBytes, run.trafficBytes),
    },
    memoryTable(run),
  ];
}

export function throughputRow(run: RunDocument): ComparisonRow {
  return {
    label: 'generated tokens per second',
    predicted: run.predicted.genTokensPerSecond,
    measured: run.genTokensPerSecond,
  };
}

/** Cells of one row: label, predicted, measured, error, and the limit when the table has one. */
export function rowCells(row: ComparisonRow, unit: Unit): string[] {
  const cells = [row.label, formatValue(row.predicted, unit), formatValue(row.measured, unit), formatError(row)];
  return row.limit === undefined ? cells : [...cells, formatValue(row.limit, unit)];
}

export function tableHead(table: ComparisonTable): string[] {
  const head = ['', 'predicted', 'measured', 'error'];
  return table.rows.some((row) => row.limit !== undefined) ? [...head, 'cap'] : head;
}
