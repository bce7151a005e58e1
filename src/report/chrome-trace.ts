/** The tasks of a run as a Chrome trace: open it in chrome://tracing or ui.perfetto.dev. One row per task kind. */
import type { NativeTraceEvent } from '../engine/native-addon.js';

const TASKS: readonly NativeTraceEvent['task'][] = [
  'loadWeights',
  'loadKvCache',
  'loadActivations',
  'compute',
  'storeKvCache',
  'storeActivations',
];
const MICROSECONDS_PER_SECOND = 1e6;
const PROCESS = 1;

export interface ChromeTrace {
  readonly displayTimeUnit: 'ms';
  readonly traceEvents: readonly object[];
}

export function chromeTrace(events: readonly NativeTraceEvent[], title: string): ChromeTrace {
  const rows = TASKS.map((name, tid) => ({ ph: 'M', name: 'thread_name', pid: PROCESS, tid, args: { name } }));
  const spans = events.map(({ task, startSeconds, endSeconds, block, step, layer, gpuBatch }) => ({
    ph: 'X',
    name: `layer ${layer}, batch ${gpuBatch}`,
    cat: task,
    pid: PROCESS,
    tid: TASKS.indexOf(task),
    ts: startSeconds * MICROSECONDS_PER_SECOND,
    dur: (endSeconds - startSeconds) * MICROSECONDS_PER_SECOND,
    args: { phase: step === 0 ? 'prefill' : 'decode', block, step, layer, gpuBatch },
  }));
  const process = { ph: 'M', name: 'process_name', pid: PROCESS, args: { name: title } };
  return { displayTimeUnit: 'ms', traceEvents: [process, ...rows, ...spans] };
}
