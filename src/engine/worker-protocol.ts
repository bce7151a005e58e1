/**
 * What the engine's own process and its parent say to each other (structured clone: typed arrays cross as they are).
 */
import type {
  NativeEngineConfig,
  NativeMeasurements,
  NativeRunResult,
  NativeSamples,
  NativeSequence,
  NativeStepEvent,
  NativeSystemInfo,
  BytesPerTier,
} from './native-addon.js';

export type MeasurementName = keyof NativeMeasurements;

/** Requests by kind: what they carry and what answers them. */
export interface WorkerCalls {
  readonly open: { readonly argument: NativeEngineConfig; readonly result: { readonly weightBytes: BytesPerTier } };
  readonly run: { readonly argument: readonly NativeSequence[]; readonly result: NativeRunResult };
  readonly close: { readonly argument: undefined; readonly result: undefined };
  readonly systemInfo: { readonly argument: undefined; readonly result: NativeSystemInfo };
  readonly measure: {
    readonly argument: { readonly name: MeasurementName; readonly options: object };
    readonly result: NativeSamples;
  };
}

export type CallKind = keyof WorkerCalls;

/** Answered by exactly one Reply with the same id. */
export type Request = {
  [K in CallKind]: { readonly kind: K; readonly id: number; readonly argument: WorkerCalls[K]['argument'] };
}[CallKind];

/** Not answered: they act on the run in flight, and do nothing when there is none. */
type Signal = { readonly kind: 'cancel' } | { readonly kind: 'cancelSequence'; readonly sequence: number };

export type ParentMessage = Request | Signal;

type Reply =
  | { readonly kind: 'result'; readonly id: number; readonly result: unknown }
  | { readonly kind: 'error'; readonly id: number; readonly code: string; readonly message: string };

export type WorkerMessage = Reply | { readonly kind: 'step'; readonly event: NativeStepEvent };
