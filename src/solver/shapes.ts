/** The batch shapes worth trying. Nothing here knows a machine: bounds and memory decide which of them survive. */
import type { BatchShape } from '../cost-model/cost-terms.js';
import { QUANT_GROUP_SIZE, type Policy } from '../policy/policy.js';
import type { Workload } from '../workload/workload.js';
import type { OptimizeOptions } from './options.js';

const LARGEST_GPU_BATCH = 4096;
const LARGEST_NUM_GPU_BATCHES = 1024;

/** So few are all tried. */
const FEW = 12;

/**
 * Powers of `base`; `refine` tries the values between. With `halfway`, the values halfway up to the next power, too.
 */
interface Grid {
  readonly base: number;
  readonly halfway: boolean;
}

/** While the bit widths are open, and once they are chosen. */
const COARSE = { batchSizes: { base: 2, halfway: false }, counts: { base: 4, halfway: false } };
const FINE = { batchSizes: { base: 2, halfway: true }, counts: { base: 2, halfway: false } };
type Grids = Readonly<Record<keyof typeof COARSE, Grid>>;

function gridValues({ base, halfway }: Grid, largest: number): number[] {
  const values: number[] = [];
  for (let power = 1; power <= largest; power *= base) {
    values.push(power);
    if (halfway && power > 1) values.push((power * (1 + base)) / 2);
  }
  return values.filter((value) => value <= largest);
}

const ascending = (values: readonly number[]): number[] => [...new Set(values)].sort((a, b) => a - b);

/** With a known number of things to do: no more than that at once, and the splits into few equal parts. */
function withEvenSplits(grid: readonly number[], total: number | undefined): number[] {
  if (total === undefined) return [...grid];
  if (total <= FEW) return Array.from({ length: total }, (_, i) => i + 1);
  const splits = [1, 2, 3, 4].map((parts) => Math.ceil(total / parts));
  return ascending([...grid, ...splits]).filter((value) => value <= total);
}

/** Ascending. */
export function gpuBatchSizes(
  { numSequences }: Workload,
  { gpuBatchSize }: OptimizeOptions,
  { batchSizes }: Grids = COARSE,
): number[] {
  return gpuBatchSize === 'auto'
    ? withEvenSplits(gridValues(batchSizes, LARGEST_GPU_BATCH), numSequences)
    : [gpuBatchSize];
}

/** Ascending. */
export function numsGpuBatches(
  { numSequences }: Workload,
  { numGpuBatches }: OptimizeOptions,
  gpuBatchSize: number,
  { counts }: Grids = COARSE,
): number[] {
  if (numGpuBatches !== 'auto') return [numGpuBatches];
  const whole = numSequences === undefined ? undefined : Math.ceil(numSequences / gpuBatchSize);
  return withEvenSplits(gridValues(counts, LARGEST_NUM_GPU_BATCHES), whole);
}

type Bits = Pick<Policy, 'weightBits' | 'kvCacheBits'>;

/** The bit widths that the options leave open, the most exact ones first. */
export function bitWidths({ weightBits, kvCacheBits }: OptimizeOptions): Bits[] {
  const choices = (bits: 16 | 4 | 'auto'): readonly (16 | 4)[] => (bits === 'auto' ? [16, 4] : [bits]);
  return choices(weightBits).flatMap((weights) =>
    choices(kvCacheBits).map((kvCache) => ({ weightBits: weights, kvCacheBits: kvCache })),
  );
}

export function batchShape(
  gpuBatchSize: number,
  numGpuBatches: number,
  bits: Bits,
  { sparseValueFraction, overlap }: OptimizeOptions,
): BatchShape {
  const sparse = sparseValueFraction < 1 && { sparseValueFraction };
  return { gpuBatchSize, numGpuBatches, ...bits, quantGroupSize: QUANT_GROUP_SIZE, ...sparse, overlap };
}

const gridShapes = (workload: Workload, options: OptimizeOptions, bits: Bits, grids: Grids): BatchShape[] =>
  gpuBatchSizes(workload, options, grids).flatMap((gpuBatchSize) =>
    numsGpuBatches(workload, options, gpuBatchSize, grids).map((numGpuBatches) =>
      batchShape(gpuBatchSize, numGpuBatches, bits, options),
    ),
  );

/** All bit widths, few batch shapes. */
export function coarseShapes(workload: Workload, options: OptimizeOptions): BatchShape[] {
  return bitWidths(options).flatMap((bits) => gridShapes(workload, options, bits, COARSE));
}

/** How far, as a factor, the finer grid looks around the best shape of the coarse one. */
const FINE_REACH = { gpuBatchSize: 4, numGpuBatches: 8 } as const;

/** More batch shapes with the same bit widths. */
export function fineShapes(workload: Workload, options: OptimizeOptions, around: BatchShape): BatchShape[] {
  const { weightBits, kvCacheBits } = around;
  const isNear = (shape: BatchShape, dimension: keyof typeof FINE_REACH): boolean =>
    Math.max(shape[dimension] / around[dimension], around[dimension] / shape[dimension]) <= FINE_REACH[dimension];
  return gridShapes(workload, options, { weightBits, kvCacheBits }, FINE).filter(
    (shape) => isNear(shape, 'gpuBatchSize') && isNear(shape, 'numGpuBatches'),
  );
}

/** At most so many values are tried between two neighbours of the coarse grid, in each direction. */
const MOST_BETWEEN = 3;

function between(low: number, high: number): number[] {
  const step = Math.max(1, Math.ceil((high - low) / (MOST_BETWEEN + 1)));
  const values: number[] = [];
  for (let value = low; value < high; value += step) values.push(value);
  return [...values, high];
}

/** Values from the one below `chosen` in the coarse grid to the one above, several steps between each. */
function surrounding(grid: readonly number[], chosen: number): number[] {
  const below = grid.filter((value) => value < chosen).at(-1) ?? chosen;
  const above = grid.find((value) => value > chosen) ?? chosen;
  return ascending([...between(below, chosen), ...between(chosen, above)]);
}

/** The finer shapes around one of the coarse grid, with the same bit widths. Fixed numbers stay fixed. */
export function refine(shape: BatchShape, workload: Workload, options: OptimizeOptions): BatchShape[] {
  const batchSizes = surrounding(gpuBatchSizes(workload, options), shape.gpuBatchSize);
  const counts = surrounding(numsGpuBatches(workload, options, shape.gpuBatchSize), shape.numGpuBatches);
  return batchSizes.flatMap((gpuBatchSize) =>
    counts.map((numGpuBatches) => ({ ...shape, gpuBatchSize, numGpuBatches })),
  );
}

const NEIGHBOUR_FACTOR = 1.25;

/** The shape itself, then its neighbours a quarter larger and smaller in each direction that the options leave open. */
export function neighbours(
  shape: BatchShape,
  { numSequences = Infinity }: Workload,
  options: OptimizeOptions,
): BatchShape[] {
  const near = (value: number, choice: number | 'auto', most: number): number[] =>
    choice === 'auto'
      ? [Math.min(most, Math.ceil(value * NEIGHBOUR_FACTOR)), Math.max(1, Math.floor(value / NEIGHBOUR_FACTOR))]
      : [];
  const batchSizes = near(shape.gpuBatchSize, options.gpuBatchSize, numSequences);
  const counts = near(shape.numGpuBatches, options.numGpuBatches, Math.ceil(numSequences / shape.gpuBatchSize));
  return [
    shape,
    ...batchSizes.map((gpuBatchSize) => ({ ...shape, gpuBatchSize })),
    ...counts.map((numGpuBatches) => ({ ...shape, numGpuBatches })),
  ];
}
