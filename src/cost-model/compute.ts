/**
 * Seconds of the device (and of the CPU beside it) for the launches of one schedule layer. Totals over all runs of a
 * step load.
 */
import type { ComputeRates } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import { kvRowBytes } from '../models/tensors.js';
import { sum, ZERO, type Affine } from './affine.js';
import { launchTimes, wideningSeconds } from './launch-seconds.js';
import { attendedRows, prefillPairs, type Launch, type StepLoad } from './loads.js';
import { portionTerm, type KvHome } from './shares.js';
import type { Setting } from './movement.js';

const DEVICE_ATTENDED: readonly KvHome[] = ['gpu', 'cpuMoved', 'diskMoved'];
const CPU_ATTENDED: readonly KvHome[] = ['cpuAttended', 'diskAttended'];

/**
 * Seconds of all launches of one decoder layer but decode attention: matmuls, the kernels between them, prefill
 * attention.
 */
export function decoderSeconds(setting: Setting, rates: ComputeRates, load: StepLoad): number {
  const launches = sumLaunches(load, launchTimes(setting, rates).decoder);
  return launches + (load.range.from === 0 ? prefillAttentionSeconds(setting.model, rates, load) : 0);
}

/** Seconds of `embed`: table rows are gathered and widened, and projected where the embedding has another width. */
export function embedSeconds(setting: Setting, rates: ComputeRates, load: StepLoad): number {
  return sumLaunches(load, launchTimes(setting, rates).embed);
}

/** Seconds of `head`: last tokens to logits, logits to tokens. */
export function headSeconds(setting: Setting, rates: ComputeRates, load: StepLoad): number {
  return sumLaunches(load, launchTimes(setting, rates).head);
}

function sumLaunches({ launches }: StepLoad, seconds: (launch: Launch) => number): number {
  return launches.reduce((total, launch) => total + launch.count * seconds(launch), 0);
}

/** Decode attention over KV that is at home on the device or was moved there. */
export function deviceAttentionSeconds(setting: Setting, rates: ComputeRates, load: StepLoad): Affine {
  return decodeAttentionSeconds(setting, rates, load, DEVICE_ATTENDED);
}

/** A device goes on after the CPU has attended: it has waited for the output. */
export function goingOnSeconds(setting: Setting, rates: ComputeRates, load: StepLoad): Affine {
  return attendedBatches(setting, load, rates.wakeSeconds?.value ?? 0);
}

/**
 * Decode attention on the CPU beside the device, one launch after a wait for each GPU batch that has such sequences.
 */
export function cpuAttentionSeconds(setting: Setting, rates: ComputeRates, load: StepLoad): Affine {
  if (!setting.hasGpu || load.range.from === 0) return ZERO;
  return sum(
    decodeAttentionSeconds(setting, rates, load, CPU_ATTENDED),
    attendedBatches(setting, load, rates.launchSeconds.value + (rates.wakeSeconds?.value ?? 0)),
  );
}

/** So many seconds for each GPU batch of which the CPU attends to a sequence. */
function attendedBatches({ hasGpu, shares }: Setting, { set, range }: StepLoad, seconds: number): Affine {
  if (!hasGpu || range.from === 0 || seconds === 0) return ZERO;
  return portionTerm(shares.kvCache.liveBatches(set, CPU_ATTENDED, range), seconds);
}

function decodeAttentionSeconds(
  { model, shape, shares }: Setting,
  rates: ComputeRates,
  { set, range }: StepLoad,
  homes: readonly KvHome[],
): Affine {
  if (range.from === 0) return ZERO;
  const rows = shares.kvCache.total(set, homes, attendedRows(range, model.slidingWindow ?? Infinity));
  return portionTerm(rows, kvRowSeconds(model, rates, shape.kvCacheBits));
}

/**
 * Seconds to attend to one KV row of one layer: reading it, or with many query heads for each KV head computing with
 * it.
 */
export function kvRowSeconds(model: ModelConfig, rates: ComputeRates, kvCacheBits: 16 | 4): number {
  const flops = 4 * model.numHeads * model.headDim;
  const reading = kvCacheBits === 4 ? kvRow4BitSeconds(model, rates) : kvRow16BitSeconds(model, rates);
  return Math.max(reading, flops / rates.attentionPrefillFlopsPerSecond.value);
}

function kvRow16BitSeconds(model: ModelConfig, rates: ComputeRates): number {
  return kvRowBytes(model, 16) / rates.attentionDecodeBytesPerSecond.value;
}

function kvRow4BitSeconds(model: ModelConfig, rates: ComputeRates): number {
  const packedBytes = kvRowBytes(model, 4);
  const measured = rates.attentionDecode4BitBytesPerSecond?.value;
  if (measured !== undefined) return packedBytes / measured;
  const wideBytes = kvRowBytes(model, 16);
  const values = 2 * model.numKvHeads * model.headDim;
  return wideningSeconds(rates, values, packedBytes + wideBytes) + kvRow16BitSeconds(model, rates);
}

function prefillAttentionSeconds(model: ModelConfig, rates: ComputeRates, { set }: StepLoad): number {
  const pairs = prefillPairs(set, model.slidingWindow ?? Infinity);
  return (4 * model.numHeads * model.headDim * pairs) / rates.attentionPrefillFlopsPerSecond.value;
}
