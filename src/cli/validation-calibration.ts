/**
 * A profile fitted to what was just measured: which of its constants may move, how far, and the runs as observations.
 */
import { calibrate, quantityAt, type Calibration, type FreeConstant } from '../cost-model/calibration.js';
import type { Observation } from '../cost-model/observations.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import { LINKS } from '../tiers.js';
import type { Workload } from '../workload/workload.js';
import type { ValidatedPolicy } from './validation-job.js';

/** Standard deviations of ln(constant): rates are measured well, the cost of small things less so. */
const DOUBT = { rate: 0.25, link: 0.1, overhead: 0.7 } as const;
/** No constant leaves the measured one by more than this factor. */
const FARTHEST = 4;
const MAX_ITERATIONS = 20;

export async function calibrateTo(
  validated: readonly ValidatedPolicy[],
  model: ModelConfig,
  hardware: HardwareProfile,
  workload: Workload,
): Promise<Calibration> {
  const observations = validated.flatMap(({ name, run }) =>
    (['prefillSeconds', 'decodeSeconds'] as const)
      .filter((quantity) => run[quantity] > 0)
      .map((quantity): Observation => ({
        name: `${name}, ${quantity}`,
        model,
        workload,
        policy: run.plan.policy,
        quantity,
        value: run[quantity],
        resolution: 0,
      })),
  );
  return calibrate(hardware, observations, freeConstants(hardware), { maxIterations: MAX_ITERATIONS });
}

function freeConstants(hardware: HardwareProfile): FreeConstant[] {
  const { compute, links } = hardware;
  const devices = (['gpu', 'cpu'] as const).filter((device) => compute[device] !== undefined);
  return [
    ...devices.flatMap((device) => computeConstants(hardware, device)),
    ...LINKS.filter((link) => links[link] !== undefined).flatMap((link) => [
      ...constant(hardware, `links.${link}.bytesPerSecond`, DOUBT.link),
      ...constant(hardware, `links.${link}.latencySeconds`, DOUBT.overhead),
    ]),
    ...constant(hardware, 'taskSeconds', DOUBT.overhead),
  ];
}

function computeConstants(hardware: HardwareProfile, device: 'gpu' | 'cpu'): FreeConstant[] {
  const { matmul, matmul4Bit = [], attentionDecode4BitBytesPerSecond } = hardware.compute[device]!;
  const rates = [
    ...matmul.map((_, p) => `matmul.${p}.flopsPerSecond`),
    ...matmul4Bit.map((_, p) => `matmul4Bit.${p}.flopsPerSecond`),
    'memoryBytesPerSecond',
    'attentionPrefillFlopsPerSecond',
    'attentionDecodeBytesPerSecond',
    ...(attentionDecode4BitBytesPerSecond ? ['attentionDecode4BitBytesPerSecond'] : []),
  ];
  return [
    ...rates.flatMap((name) => constant(hardware, `compute.${device}.${name}`, DOUBT.rate)),
    ...constant(hardware, `compute.${device}.launchSeconds`, DOUBT.overhead),
  ];
}

/** What is 0 stays 0: its logarithm has no neighbourhood. */
function constant(hardware: HardwareProfile, path: string, doubt: number): FreeConstant[] {
  const { value } = quantityAt(hardware, path);
  return value > 0 ? [{ path, least: value / FARTHEST, most: value * FARTHEST, doubt }] : [];
}
