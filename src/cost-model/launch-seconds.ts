/**
 * Seconds of one launch of a schedule layer: its matmuls and the kernels between them. Attention over the KV cache is
 * in compute.ts.
 */
import type { ComputeRates, MatmulPoint } from '../hardware/hardware-profile.js';
import { BYTES_PER_ELEMENT, FLOAT_BYTES, type ModelConfig } from '../models/model-config.js';
import {
  hiddenBytes,
  layerTensors,
  rowBytes,
  type LayerKind,
  type TensorSpec,
  type WeightBits,
} from '../models/tensors.js';
import { remembered, rememberedFor } from '../remembered.js';
import type { Device } from '../tiers.js';
import { decoderLaunches, elementwiseBytes, embedLaunches, headLaunches, type LaunchSize } from './kernels.js';
import type { Setting } from './movement.js';

/** A 4-bit matrix without measured 4-bit rates is widened first: packed values read, 16-bit values written. */
const WIDENED_BYTES_PER_ELEMENT = 2;

type LaunchSeconds = (launch: LaunchSize) => number;

/** Seconds of one launch of each kind of layer. */
type LaunchTimes = Readonly<Record<LayerKind, LaunchSeconds>>;

/** Each size is worked out once: batch shapes by the hundred launch with the same numbers of tokens. */
export function launchTimes({ model, shape: { weightBits }, device }: Setting, rates: ComputeRates): LaunchTimes {
  const ofRates = timesOfModel(model)(rates);
  const key = `${weightBits} ${device}`;
  const times = ofRates.get(key) ?? newLaunchTimes(model, weightBits, device, rates);
  ofRates.set(key, times);
  return times;
}

const timesOfModel = remembered((_: ModelConfig) => remembered((_: ComputeRates) => new Map<string, LaunchTimes>()));

/** More than any number of sequences in a launch. */
const KEY_STRIDE = 2 ** 22;

function bySize(seconds: LaunchSeconds): LaunchSeconds {
  const known = new Map<number, number>();
  return (launch) => {
    const key = launch.tokens * KEY_STRIDE + launch.sequences;
    const found = known.get(key) ?? seconds(launch);
    known.set(key, found);
    return found;
  };
}

function newLaunchTimes(model: ModelConfig, weightBits: WeightBits, device: Device, rates: ComputeRates): LaunchTimes {
  const { memoryBytesPerSecond, launchSeconds } = rates;
  const embedBytes = model.embeddingSize * BYTES_PER_ELEMENT[model.dtype] + hiddenBytes(model);
  const logitBytes = model.vocabSize * FLOAT_BYTES;
  const matmul = (kind: LayerKind, tokens: number) => layerMatmulSeconds(model, rates, weightBits, kind, tokens);
  const streaming = (bytes: number) => bytes / memoryBytesPerSecond.value;
  const launching = (launches: number) => launches * launchSeconds.value;
  return {
    embed: bySize(
      (launch) =>
        matmul('embed', launch.tokens) +
        streaming(launch.tokens * embedBytes) +
        launching(embedLaunches(model, device, launch)),
    ),
    decoder: bySize(
      (launch) =>
        matmul('decoder', launch.tokens) +
        streaming(launch.tokens * elementwiseBytes(model)) +
        launching(decoderLaunches(model, device, launch, expertLoad(model, launch.tokens).touched)),
    ),
    head: bySize(
      ({ sequences }) =>
        matmul('head', sequences) + streaming(sequences * logitBytes) + launching(headLaunches(model, device)),
    ),
  };
}

/**
 * All matmuls of one launch of a layer. Of a mixture's experts those that the tokens choose, each with its part of the
 * tokens.
 */
function layerMatmulSeconds(
  model: ModelConfig,
  rates: ComputeRates,
  weightBits: WeightBits,
  kind: LayerKind,
  tokens: number,
): number {
  const experts = expertLoad(model, tokens);
  let total = 0;
  for (const group of matrixGroups(model, weightBits)[kind]) {
    const { numElements, ofExperts } = group;
    const elements = ofExperts ? (numElements * experts.touched) / model.experts!.count : numElements;
    total += elements * weightSeconds(rates, group, ofExperts ? experts.tokens : tokens);
  }
  return total;
}

/** Matrices of a layer of which an element costs the same. */
interface MatrixGroup {
  numElements: number;
  readonly bits: WeightBits;
  readonly bytesPerElement: number;
  /** Of all matrices that one launch multiplies with. */
  readonly launchRows: number;
  readonly ofExperts: boolean;
}

/** Matrices that read the same input are multiplied in one launch. */
const LAUNCH_OF: Readonly<Record<string, string>> = { q: 'qkv', k: 'qkv', v: 'qkv', gate: 'gateUp', up: 'gateUp' };

function launchOf({ role }: TensorSpec): string {
  const name = role.slice(role.lastIndexOf('.') + 1);
  return role.slice(0, role.length - name.length) + (LAUNCH_OF[name] ?? name);
}

/** Rows of all matrices of each launch. */
function rowsOfLaunches(matrices: readonly TensorSpec[]): Map<string, number> {
  const rows = new Map<string, number>();
  for (const matrix of matrices) rows.set(launchOf(matrix), (rows.get(launchOf(matrix)) ?? 0) + matrix.rows);
  return rows;
}

/** A handful for any layer: a mixture has hundreds of matrices. */
const matrixGroups = rememberedFor((model: ModelConfig, weightBits: WeightBits) => {
  const groupsOf = (kind: LayerKind): readonly MatrixGroup[] => {
    const groups = new Map<string, MatrixGroup>();
    const matrices = layerTensors(model, kind).filter((tensor) => tensor.kind === 'matrix');
    const rowsOf = rowsOfLaunches(matrices);
    for (const tensor of matrices) {
      const launchRows = rowsOf.get(launchOf(tensor))!;
      const ofExperts = tensor.role.startsWith('experts.');
      const bits = tensor.quantizable ? weightBits : 16;
      const bytesPerElement = rowBytes(model, tensor, weightBits) / tensor.cols;
      const numElements = tensor.rows * tensor.cols;
      const key = `${ofExperts} ${bits} ${bytesPerElement} ${launchRows}`;
      const group = groups.get(key);
      if (group) group.numElements += numElements;
      else groups.set(key, { numElements, bits, bytesPerElement, launchRows, ofExperts });
    }
    return [...groups.values()];
  };
  return { embed: groupsOf('embed'), decoder: groupsOf('decoder'), head: groupsOf('head') };
});

/** Experts that a launch touches when tokens choose evenly and independently, and the tokens of each. */
export function expertLoad(model: ModelConfig, tokens: number): { touched: number; tokens: number } {
  const { count, activePerToken } = model.experts ?? { count: 1, activePerToken: 1 };
  const touched = count * (1 - (1 - activePerToken / count) ** tokens);
  return { touched, tokens: (tokens * activePerToken) / touched };
}

/** Seconds that one matrix element costs a launch of so many tokens, never less than reading it takes. */
function weightSeconds(rates: ComputeRates, group: MatrixGroup, tokens: number): number {
  const { bits, bytesPerElement, launchRows } = group;
  const memory = rates.memoryBytesPerSecond.value;
  const narrow = narrowness(rates, launchRows, tokens);
  const multiplying = (points: readonly MatmulPoint[]) => narrow * secondsPerElement(points, tokens);
  if (bits === 16) return Math.max(multiplying(rates.matmul), bytesPerElement / memory);
  if (rates.matmul4Bit?.length) return Math.max(multiplying(rates.matmul4Bit), bytesPerElement / memory);
  const widening = wideningSeconds(rates, 1, bytesPerElement + WIDENED_BYTES_PER_ELEMENT);
  return widening + Math.max(multiplying(rates.matmul), WIDENED_BYTES_PER_ELEMENT / memory);
}

/**
 * How many times as long an element takes in a launch over so few rows, at least 1: a power of the rows between the two
 * numbers of rows that were measured, and no more below them.
 */
export function narrowness({ matmul, narrowMatmul }: ComputeRates, launchRows: number, tokens: number): number {
  if (!narrowMatmul || launchRows >= narrowMatmul.wideRows) return 1;
  const { rows, wideRows, points } = narrowMatmul;
  const measured = secondsPerElement(points, tokens) / secondsPerElement(matmul, tokens);
  const part = Math.log(wideRows / launchRows) / Math.log(wideRows / rows);
  return Math.max(1, measured) ** Math.min(1, part);
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

/** Seconds of a kernel that reads packed values and writes them as 16-bit ones: `bytes` in all. */
export function wideningSeconds(rates: ComputeRates, values: number, bytes: number): number {
  const reading = bytes / rates.memoryBytesPerSecond.value;
  const dequantizing = values / (rates.dequantizeValuesPerSecond?.value ?? Infinity);
  return Math.max(reading, dequantizing);
}
