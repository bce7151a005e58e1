/** How another system would run the job: its policy, and our estimate of it on this machine. */
import type { HardwareProfile } from '../../hardware/hardware-profile.js';
import type { ModelConfig } from '../../models/model-config.js';
import type { Policy } from '../../policy/policy.js';
import type { Workload } from '../../workload/workload.js';
import type { Estimate } from '../estimate-types.js';

export type BaselineSystem = 'Accelerate' | 'DeepSpeed ZeRO-Inference' | 'FlexGen';

export interface Baseline {
  readonly system: BaselineSystem;
  readonly policy: Policy;
  readonly estimate: Estimate;
}

/** Undefined: the system cannot run the job on this machine. */
export type BaselineFinder = (
  model: ModelConfig,
  hardware: HardwareProfile,
  workload: Workload,
) => Baseline | undefined;
