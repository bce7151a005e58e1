/** What the whole job takes: hours with a band, blocks, bytes written to disk. */
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import { blockSize } from '../policy/policy.js';
import type { Workload } from '../workload/workload.js';
import { atEndOfSpread } from './changed-hardware.js';
import type { JobSummary } from './plan.js';
import type { RealisedPolicy } from './round.js';

const SECONDS_PER_HOUR = 3600;

/** `secondsOn`: seconds of the same realised policy on a faster or slower machine. */
export function jobSummary(
  hardware: HardwareProfile,
  workload: Workload,
  { policy, estimate, blockSeconds }: RealisedPolicy,
  secondsOn: (hardware: HardwareProfile) => number,
): JobSummary {
  const numSequences = workload.numSequences ?? blockSize(policy);
  const fast = secondsOn(atEndOfSpread(hardware, 1));
  const slow = secondsOn(atEndOfSpread(hardware, -1));
  return {
    numSequences,
    numBlocks: Math.ceil(numSequences / blockSize(policy)),
    blockSeconds,
    hours: estimate.totalSeconds / SECONDS_PER_HOUR,
    hoursRange: [fast / SECONDS_PER_HOUR, slow / SECONDS_PER_HOUR],
    diskWriteBytes: estimate.trafficBytes.prefill.cpuToDisk + estimate.trafficBytes.decode.cpuToDisk,
  };
}
