/** Seconds of the device (and of the CPU beside it) for the launches of one schedule layer. Totals over all runs of a step load. */
import type { ComputeRates, MatmulPoint } from '../hardware/hardware-profile.js';
import { BYTES_PER_ELEMENT, type ModelConfig } from '../models/model-config.js';
import { hiddenBytes, kvRowBytes, layerTensors, rowBytes, type LayerKind, type WeightBits } from '../models/tensors.js';
import { sum, ZERO, type Affine } from './affine.js';
import { decoderLaunches, elementwiseBytes, embedLaunches, headLaunches } from './kernels.js';
import { totalOf } from './block-sets.js';
import { attendedRows, type Launch, type StepLoad } from './loads.js';
import { portionTerm, type KvHome } from './shares.js';
import type { Setting } from './movement.js';

/** A 4-bit matrix without measured 4-bit rates is widened first: packed values read, 16-bit values written. */
const WIDENED_BYTES_PER_ELEMENT = 2;
const FLOAT_BYTES = 4;
const DEVICE_ATTENDED: readonly KvHome[] = ['gpu', 'cpuMoved', 'diskMoved'];
const CPU_ATTENDED: readonly KvHome[] = ['cpuAttended', 'diskAttended'];

/** Seconds of all launches of one decoder layer but decode attention: matmuls, the kernels between them, prefill attention. */
export function decoderSeconds(setting: Setting, rates: ComputeRates, load: StepLoad): number {
  const launches = sumLaunches(load, (launch) => decoderLaunchSeconds(setting, rates, launch));
  return launches + (load.range.from === 0 ? prefillAttentionSeconds(setting.model, rates, load) : 0);
}

function sumLaunches({ launches }: StepLoad, seconds: (launch: Launch) => number): number {
  return launches.reduce((total, launch) => total + launch.count * seconds(launch), 0);
}

/** Seconds of `embed`: table rows are gathered and widened, and projected where the embedding has another width. */
export function embedSeconds({ model, shape, device }: Setting, rates: ComputeRates, load: StepLoad): number {
  const tableBytes = model.embeddingSize * BYTES_PER_ELEMENT[model.dtype];
  const tokenSeconds = (tableBytes + hiddenBytes(model)) / rates.memoryBytesPerSecond.value;
  return sumLaunches(
    load,
    (launch) =>
      layerMatmulSeconds(model, rates, shape.weightBits, 'embed', launch.tokens) +
      launch.tokens * tokenSeconds +
      embedLaunches(model, device, launch) * rates.launchSeconds.value,
  );
}

/** Seconds of `head`: last tokens to logits, logits to tokens. */
export function headSeconds({ model, shape, device }: Setting, rates: ComputeRates, load: StepLoad): number {
  const samplingSeconds = (model.vocabSize * FLOAT_BYTES) / rates.memoryBytesPerSecond.value;
  return sumLaunches(
    load,
    ({ sequences }) =>
      layerMatmulSeconds(model, rates, shape.weightBits, 'head', sequences) +
      sequences * samplingSeconds +
      headLaunches(model, device) * rates.launchSeconds.value,
  );
}

/** Decode attention over KV that is at home on the device or was moved there. */
export function deviceAttentionSeconds(setting: Setting, rates: ComputeRates, load: StepLoad): Affine {
  return decodeAttentionSeconds(setting, rates, load, DEVICE_ATTENDED);
}

/** Decode attention on the CPU beside the device, one launch for each GPU batch that has such sequences. */
export function cpuAttentionSeconds(setting: Setting, rates: ComputeRates, load: StepLoad): Affine {
  if (!setting.hasGpu || load.range.from === 0) return ZERO;
  const batches = setting.shares.kvCache.liveBatches(load.set, CPU_ATTENDED, load.range);
  return sum(
    decodeAttentionSeconds(setting, rates, load, CPU_ATTENDED),
    portionTerm(batches, rates.launchSeconds.value),
  );
}

function decodeAttentionSeconds(
  { model, shape, shares }: Setting,
  rates: ComputeRates,
  { set, range }: StepLoad,
  homes: readonly KvHome[],
): Affine {
  if (range.from === 0) return ZERO;
  const rows = shares.kvCache.total(set, homes, attendedRows(range, model.slidingWindow));
  return portionTerm(rows, kvRowSeconds(model, rates, shape.kvCacheBits));
}

/** Seconds to attend to one KV row of one layer: reading it, or with many query heads for each KV head computing with it. */
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

/** Seconds of a kernel that reads packed values and writes them as 16-bit ones: `bytes` in all. */
function wideningSeconds(rates: ComputeRates, values: number, bytes: number): number {
  const reading = bytes / rates.memoryBytesPerSecond.value;
  const dequantizing = values / (rates.dequantizeValuesPerSecond?.value ?? Infinity);
  return Math.max(reading, dequantizing);
}

/** Causal: each query attends to itself and what came before it, inside the window. */
function prefillAttentionSeconds(model: ModelConfig, rates: ComputeRates, { set, range }: StepLoad): number {
  const pairs = totalOf(set, attendedRows(range, model.slidingWindow));
  return (4 * model.numHeads * model.headDim * pairs) / rates.attentionPrefillFlopsPerSecond.value;
}

function decoderLaunchSeconds({ model, shape, device }: Setting, rates: ComputeRates, launch: Launch): number {
  const { touched } = expertLoad(model, launch.tokens);
  const matmul = layerMatmulSeconds(model, rates, shape.weightBits, 'decoder', launch.tokens);
  const between = (launch.tokens * elementwiseBytes(model)) / rates.memoryBytesPerSecond.value;
  return matmul + between + decoderLaunches(model, device, launch, touched) * rates.launchSeconds.value;
}

/** All matmuls of one launch of a layer. Of a mixture's experts those that the tokens choose, each with its part of the tokens. */
function layerMatmulSeconds(
  model: ModelConfig,
  rates: ComputeRates,
  weightBits: WeightBits,
  kind: LayerKind,
  tokens: number,
): number {
  let shared = 0;
  let ofExperts = 0;
  for (const tensor of layerTensors(model, kind)) {
    if (tensor.kind !== 'matrix') continue;
    const isExpert = tensor.role.startsWith('experts.');
    const bits = tensor.quantizable ? weightBits : 16;
    const batch = isExpert ? expertLoad(model, tokens).tokens : tokens;
    const bytes = rowBytes(model, tensor, weightBits) / tensor.cols;
    const seconds = tensor.rows * tensor.cols * weightSeconds(rates, bits, bytes, batch);
    if (isExpert) ofExperts += seconds;
    else shared += seconds;
  }
  return shared + (model.experts ? (ofExperts * expertLoad(model, tokens).touched) / model.experts.count : 0);
}

/** Experts that a launch touches when tokens choose evenly and independently, and the tokens of each. */
export function expertLoad(model: ModelConfig, tokens: number): { touched: number; tokens: number } {
  const { count, activePerToken } = model.experts ?? { count: 1, activePerToken: 1 };
  const touched = count * (1 - (1 - activePerToken / count) ** tokens);
  return { touched, tokens: (tokens * activePerToken) / touched };
}

/** Seconds that one matrix element costs a launch of so many tokens, never less than reading it takes. */
function weightSeconds(rates: ComputeRates, bits: WeightBits, bytesPerElement: number, tokens: number): number {
  const memory = rates.memoryBytesPerSecond.value;
  if (bits === 16) return Math.max(secondsPerElement(rates.matmul, tokens), bytesPerElement / memory);
  if (rates.matmul4Bit?.length) return Math.max(secondsPerElement(rates.matmul4Bit, tokens), bytesPerElement / memory);
  const widening = wideningSeconds(rates, 1, bytesPerElement + WIDENED_BYTES_PER_ELEMENT);
  return widening + Math.max(secondsPerElement(rates.matmul, tokens), WIDENED_BYTES_PER_ELEMENT / memory);
}

/**
 * 2 x tokens FLOPs at the profile's rate: linear in tokens between points. Above the last point its rate holds;
 * below the first the time shrinks with the tokens (reading the weights bounds it, which the caller sees to).
 */
export function secondsPerElement(points: readonly MatmulPoint[], tokens: number): number {
  const secondsAt = (p: number) => (2 * points[p]!.tokens) / points[p]!.flopsPerSecond.value;
  const above = points.findIndex((point) => point.tokens >= tokens);
  if (above === -1) return (secondsAt(points.length - 1) * tokens) / points[points.length - 1]!.tokens;
  if (above === 0) return (secondsAt(0) * tokens) / points[0]!.tokens;
  const low = points[above - 1]!.tokens;
  const part = (tokens - low) / (points[above]!.tokens - low);
  return secondsAt(above - 1) * (1 - part) + secondsAt(above) * part;
}
