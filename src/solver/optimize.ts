/** The best plan for a job on a machine, or what is missing for there to be one. */
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import type { Workload } from '../workload/workload.js';
import type { InfeasibleResult } from './infeasible.js';
import { cappedHardware, resolveOptions, type OptimizeOptions } from './options.js';
import type { Plan } from './plan.js';
import { Planner, surroundingsOf, type Surroundings } from './planner.js';

export interface PlanResult {
  readonly status: 'optimal';
  readonly plan: Plan;
}

/**
 * The plan with the most generated tokens per second, or what is missing for one. Throws `usage` for unknown options
 * and values out of range; a job that does not fit is a result, not an error.
 */
export async function optimize(
  model: ModelConfig,
  hardware: HardwareProfile,
  workload: Workload,
  options: Partial<OptimizeOptions> = {},
  surroundings: Partial<Surroundings> = {},
): Promise<PlanResult | InfeasibleResult> {
  const resolved = resolveOptions(options);
  const machine = cappedHardware(hardware, resolved);
  const planner = new Planner(model, machine, workload, resolved, surroundingsOf(surroundings));
  const startSeconds = planner.surroundings.clockSeconds();
  const result = await planner.search('throughput', resolved.maxLatencySeconds);
  const [best] = result.found;
  return best
    ? { status: 'optimal', plan: await planner.plan(startSeconds, result, best) }
    : planner.explainInfeasible();
}
