/** The same job under other systems' policies: what a plan is set against. */
import type { HardwareProfile } from '../../hardware/hardware-profile.js';
import type { ModelConfig } from '../../models/model-config.js';
import type { Workload } from '../../workload/workload.js';
import { accelerate } from './accelerate.js';
import type { Baseline } from './baseline.js';
import { deepSpeed } from './deepspeed.js';
import { flexGen } from './flexgen-policy.js';

export type { Baseline, BaselineSystem } from './baseline.js';

/** Those of Accelerate, DeepSpeed ZeRO-Inference and FlexGen that can run the job on this machine, in this order. */
export function baselinePolicies(model: ModelConfig, hardware: HardwareProfile, workload: Workload): Baseline[] {
  return [accelerate, deepSpeed, flexGen]
    .map((find) => find(model, hardware, workload))
    .filter((baseline) => baseline !== undefined);
}
