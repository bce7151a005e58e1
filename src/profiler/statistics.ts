/** Samples -> a number with its spread. Medians: one slow repetition on a shared machine must not move the result. */
import type { Quantity } from '../hardware/hardware-profile.js';

/** The value below which `fraction` of the samples lie, interpolated linearly. `samples` must not be empty. */
export function percentile(samples: ArrayLike<number>, fraction: number): number {
  const sorted = Float64Array.from(samples).sort();
  const position = fraction * (sorted.length - 1);
  const below = Math.floor(position);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below]! + (position - below) * (sorted[above]! - sorted[below]!);
}

export function median(samples: ArrayLike<number>): number {
  return percentile(samples, 0.5);
}

/** Half the distance between the 10th and the 90th percentile, as a fraction of the median. */
export function spread(samples: ArrayLike<number>): number {
  const middle = median(samples);
  return middle > 0 ? (percentile(samples, 0.9) - percentile(samples, 0.1)) / 2 / middle : 0;
}

/** Three digits of spread say enough, and keep a profile readable. */
export function measured(value: number, samples: ArrayLike<number>, note?: string): Quantity {
  const quantity: Quantity = {
    value: Number(value.toPrecision(6)),
    source: 'measured',
    spread: Number(spread(samples).toPrecision(3)),
  };
  return note === undefined ? quantity : { ...quantity, note };
}
