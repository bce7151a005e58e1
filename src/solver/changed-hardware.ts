/** The same machine faster or slower: for bands, sensitivities and laws. */
import type { HardwareProfile, Quantity } from '../hardware/hardware-profile.js';
import type { Link } from '../tiers.js';

type Factor = (quantity: Quantity) => number;

const isQuantity = (value: object): value is Quantity => 'value' in value && 'source' in value;

/** Multiplies every rate by `factor` and divides every time by it, by their names: `...PerSecond` and `...Seconds`. */
function withRates<T>(value: T, factor: Factor, name = ''): T {
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item: unknown) => withRates(item, factor, name)) as T;
  if (isQuantity(value)) {
    if (name.endsWith('PerSecond')) return { ...value, value: value.value * factor(value) };
    return name.endsWith('Seconds') ? { ...value, value: value.value / factor(value) } : value;
  }
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withRates(item, factor, key)])) as T;
}

/** Everything `factor` times as fast. */
export function withSpeed(hardware: HardwareProfile, factor: number): HardwareProfile {
  return withRates(hardware, () => factor);
}

/** One link carries `factor` times as many bytes per second; its latency stays. */
export function withLinkSpeed(hardware: HardwareProfile, link: Link, factor: number): HardwareProfile {
  const { latencySeconds, ...rates } = hardware.links[link]!;
  return { ...hardware, links: { ...hardware.links, [link]: { ...withRates(rates, () => factor), latencySeconds } } };
}

/** Spreads of nearly all of the value say that a number is hardly known; a rate still stays positive. */
const LARGEST_SPREAD = 0.9;

/** Every rate at one end of its spread: `direction` 1 is the fast end, -1 the slow one. */
export function atEndOfSpread(hardware: HardwareProfile, direction: 1 | -1): HardwareProfile {
  return withRates(hardware, ({ spread = 0 }) => 1 + direction * Math.min(spread, LARGEST_SPREAD));
}
