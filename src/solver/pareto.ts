/** The trade between how long a block takes and how many tokens a second come out of it. */
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import type { Policy } from '../policy/policy.js';
import type { Workload } from '../workload/workload.js';
import { cappedHardware, resolveOptions, type OptimizeOptions } from './options.js';
import { Planner, surroundingsOf, type Surroundings } from './planner.js';

export interface ParetoPoint {
  readonly latencySeconds: number;
  readonly genTokensPerSecond: number;
  readonly policy: Policy;
}

/** Each point allows this part of the latency of the one before. */
const LATENCY_STEP = 0.7;
const MOST_POINTS = 16;

/**
 * Slowest and most productive first: no point is both slower and less productive than another. Empty when nothing fits.
 * Of one block: a number of sequences in the workload is not looked at, for it would tie throughput to latency.
 */
export async function pareto(
  model: ModelConfig,
  hardware: HardwareProfile,
  { promptTokens, genTokens }: Workload,
  options: Partial<OptimizeOptions> = {},
  surroundings: Partial<Surroundings> = {},
): Promise<ParetoPoint[]> {
  const resolved = resolveOptions(options);
  const machine = cappedHardware(hardware, resolved);
  const planner = new Planner(model, machine, { promptTokens, genTokens }, resolved, surroundingsOf(surroundings));
  const points: ParetoPoint[] = [];
  let limitSeconds = resolved.maxLatencySeconds;
  while (points.length < MOST_POINTS) {
    const [best] = (await planner.search('throughput', limitSeconds)).found;
    if (!best) break;
    const { totalSeconds: latencySeconds, genTokensPerSecond } = best.estimate;
    while (points.length > 0 && genTokensPerSecond >= points.at(-1)!.genTokensPerSecond) points.pop();
    points.push({ latencySeconds, genTokensPerSecond, policy: best.policy });
    limitSeconds = latencySeconds * LATENCY_STEP;
  }
  return points;
}
