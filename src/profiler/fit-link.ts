/** Transfers of several sizes -> seconds = latencySeconds + bytes / bytesPerSecond. */
import { FlexplanError } from '../errors.js';

export interface TransferPoint {
  readonly bytes: number;
  /** Median of the repetitions. */
  readonly seconds: number;
}

export interface LinkFit {
  readonly latencySeconds: number;
  readonly bytesPerSecond: number;
}

/**
 * Least squares on relative errors (weights 1 / seconds^2), so that small transfers count as much as large ones. A
 * negative latency or rate is noise: then the line goes through the origin, or is flat at the largest transfer's rate.
 * Throws `engine` when there is no transfer that took time.
 */
export function fitLink(points: readonly TransferPoint[]): LinkFit {
  const usable = points.filter(({ bytes, seconds }) => bytes > 0 && seconds > 0);
  if (usable.length === 0)
    throw new FlexplanError('engine', `expected transfers that take time, got none of ${points.length}; measure again`);
  const { latencySeconds, secondsPerByte } = weightedLine(usable);
  if (latencySeconds >= 0 && secondsPerByte > 0) return { latencySeconds, bytesPerSecond: 1 / secondsPerByte };
  if (secondsPerByte > 0) return { latencySeconds: 0, bytesPerSecond: 1 / throughOrigin(usable) };
  const largest = usable.reduce((a, b) => (b.bytes > a.bytes ? b : a));
  return { latencySeconds: 0, bytesPerSecond: largest.bytes / largest.seconds };
}

/** Solves the 2 x 2 normal equations of sum(((latency + slope * bytes) / seconds - 1)^2). */
function weightedLine(points: readonly TransferPoint[]): { latencySeconds: number; secondsPerByte: number } {
  let [s00, s01, s11, r0, r1] = [0, 0, 0, 0, 0];
  for (const { bytes, seconds } of points) {
    const unit = 1 / seconds;
    const slope = bytes / seconds;
    s00 += unit * unit;
    s01 += unit * slope;
    s11 += slope * slope;
    r0 += unit;
    r1 += slope;
  }
  const determinant = s00 * s11 - s01 * s01;
  // One size alone says nothing about latency.
  if (determinant <= 1e-12 * s00 * s11) return { latencySeconds: -1, secondsPerByte: throughOrigin(points) };
  return {
    latencySeconds: (r0 * s11 - r1 * s01) / determinant,
    secondsPerByte: (s00 * r1 - s01 * r0) / determinant,
  };
}

/** Seconds per byte of the best line without latency. */
function throughOrigin(points: readonly TransferPoint[]): number {
  let [square, sum] = [0, 0];
  for (const { bytes, seconds } of points) {
    square += (bytes / seconds) ** 2;
    sum += bytes / seconds;
  }
  return sum / square;
}
