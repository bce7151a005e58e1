/** Rates of the computing device, measured with the engine's own kernels. */
import type { Instruments } from '../engine/instruments.js';
import type { FileDataType, NativeSamples } from '../engine/native-addon.js';
import type { ComputeRates, MatmulPoint, Quantity } from '../hardware/hardware-profile.js';
import { SHAPES, type ComputingDevice, type Effort } from './effort.js';
import { measured, median } from './statistics.js';

/** Announces a measurement and refuses to start it once the user has interrupted. */
export type Step = <T>(title: string, measure: () => Promise<T>) => Promise<T>;

/** The cost of a launch is paid apart, so it is taken out here; what is left is never less than this share. */
const LEAST_KERNEL_SHARE = 0.1;

/** Work per second of the median repetition, without `overheadSeconds`. */
function rateOf({ seconds, work }: NativeSamples, overheadSeconds = 0, note?: string): Quantity {
  const whole = median(seconds);
  const kernelSeconds = Math.max(whole - overheadSeconds, whole * LEAST_KERNEL_SHARE);
  return measured(work / kernelSeconds, seconds, note);
}

async function measureMatmul(
  instruments: Instruments,
  step: Step,
  options: {
    device: ComputingDevice;
    rows: number;
    tokens: readonly number[];
    weightBits: 16 | 4;
    dtype: FileDataType;
    launch: number;
    effort: Effort;
  },
): Promise<MatmulPoint[]> {
  const points: MatmulPoint[] = [];
  for (const tokens of options.tokens) {
    const samples = await step(
      `${nameOf(options.device)}matmul, ${options.weightBits}-bit weights, ${options.rows} rows, ${tokens} tokens`,
      () =>
        instruments.matmul({
          device: options.device,
          tokens,
          rows: options.rows,
          cols: SHAPES[options.device].matrix.cols,
          dtype: options.dtype,
          weightBits: options.weightBits,
          repetitions: options.effort.matmulRepetitions,
          numThreads: 0,
        }),
    );
    points.push({ tokens, flopsPerSecond: rateOf(samples, options.launch) });
  }
  return points;
}

function attention(
  instruments: Instruments,
  step: Step,
  shape: {
    device: ComputingDevice;
    phase: 'prefill' | 'decode';
    kvCacheBits: 16 | 4;
    dtype: FileDataType;
    repetitions: number;
  },
): Promise<NativeSamples> {
  const { heads, [shape.phase]: lengths } = SHAPES[shape.device];
  return step(`${nameOf(shape.device)}${shape.phase} attention, ${shape.kvCacheBits}-bit KV cache`, () =>
    instruments.attention({ ...heads, ...lengths, ...shape, numThreads: 0 }),
  );
}

/** Where it matters which of two devices is measured. */
function nameOf(device: ComputingDevice): string {
  return device === 'cuda' ? 'GPU: ' : '';
}

/** Number of measurements that `measureCompute` announces. */
export function computeSteps(effort: Effort, device: ComputingDevice): number {
  const single = ['launch', 'wake', 'memoryRead', 'prefill attention', 'decode attention', 'decode attention 4-bit']
    .length;
  const { matmulTokens, narrowMatmulTokens, matmul4BitTokens } = effort.compute[device];
  return single + matmulTokens.length + narrowMatmulTokens.length + matmul4BitTokens.length;
}

export async function measureCompute(
  instruments: Instruments,
  step: Step,
  effort: Effort,
  dtype: FileDataType,
  device: ComputingDevice,
): Promise<ComputeRates> {
  const { repetitions } = effort;
  const { memoryBytes, matmulTokens, narrowMatmulTokens, matmul4BitTokens } = effort.compute[device];
  const { matrix, narrowRows } = SHAPES[device];
  const launch = (title: string, pauseSeconds: number) =>
    step(nameOf(device) + title, () =>
      instruments.launch({ device, pauseSeconds, repetitions: repetitions * LAUNCH_REPETITIONS, numThreads: 0 }),
    );
  const launches = await launch('launch', 0);
  const launchSeconds = median(launches.seconds) / launches.work;
  const wakes = await launch('launch after a wait', WAIT_SECONDS);
  const wakeSeconds = Math.max(0, median(wakes.seconds) / wakes.work - launchSeconds);
  const memory = await step(`${nameOf(device)}memory bandwidth`, () =>
    instruments.memoryRead({ device, bytes: memoryBytes, repetitions, numThreads: 0 }),
  );
  const products = { device, rows: matrix.rows, dtype, launch: launchSeconds, effort };
  const matmul = await measureMatmul(instruments, step, { ...products, tokens: matmulTokens, weightBits: 16 });
  const narrowPoints = await measureMatmul(instruments, step, {
    ...products,
    rows: narrowRows,
    tokens: narrowMatmulTokens,
    weightBits: 16,
  });
  const matmul4Bit = await measureMatmul(instruments, step, { ...products, tokens: matmul4BitTokens, weightBits: 4 });
  const shape = { device, dtype, repetitions };
  const prefill = await attention(instruments, step, { ...shape, phase: 'prefill', kvCacheBits: 16 });
  const decode = await attention(instruments, step, { ...shape, phase: 'decode', kvCacheBits: 16 });
  const decode4Bit = await attention(instruments, step, { ...shape, phase: 'decode', kvCacheBits: 4 });
  return {
    matmul,
    narrowMatmul: { rows: narrowRows, wideRows: matrix.rows, points: narrowPoints },
    matmul4Bit,
    memoryBytesPerSecond: rateOf(memory),
    attentionPrefillFlopsPerSecond: rateOf(prefill, launchSeconds),
    attentionDecodeBytesPerSecond: rateOf(decode, launchSeconds),
    attentionDecode4BitBytesPerSecond: rateOf(decode4Bit, launchSeconds, 'compressed bytes'),
    launchSeconds: measured(launchSeconds, launches.seconds),
    wakeSeconds: measured(wakeSeconds, wakes.seconds),
  };
}

/** A launch takes microseconds: many of them cost nothing and make the median firm. */
const LAUNCH_REPETITIONS = 50;
/** Longer than the engine's threads spin. */
const WAIT_SECONDS = 300e-6;
