/**
 * What must agree before a plan runs: its model with the folder, its lengths with the prompts, its device with the
 * machine.
 */
import { FlexplanError } from '../errors.js';
import { capacityBytes } from '../hardware/check-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import type { Plan } from '../solver/plan.js';
import { TIERS, type Tier } from '../tiers.js';
import type { SequenceLength } from '../workload/workload.js';
import { requestedCaps, resolveDevice, type DeviceRequest, type DeviceSettings } from './device.js';

const MODEL_DIMS = [
  'numLayers',
  'hiddenSize',
  'ffnSize',
  'numHeads',
  'numKvHeads',
  'headDim',
  'vocabSize',
  'embeddingSize',
  'tiedEmbeddings',
  'dtype',
] as const satisfies readonly (keyof ModelConfig)[];

/** Throws `wrong-model` naming the first dimension that differs. */
export function checkSameModel(planned: ModelConfig, model: ModelConfig): void {
  const different = MODEL_DIMS.find((name) => planned[name] !== model[name]);
  if (different)
    throw new FlexplanError(
      'wrong-model',
      `expected a model like the plan's (${planned.name}, ${different} ${planned[different]}), got ${model.name} ` +
        `with ${different} ${model[different]}; plan for this model with flexplan optimize`,
    );
}

/** Throws `bad-input` when the longest of a job is longer than what the plan reserved. */
export function checkLengths({ workload }: Plan, job: SequenceLength): void {
  for (const name of ['promptTokens', 'genTokens'] as const) {
    if (job[name] > workload[name])
      throw new FlexplanError(
        'bad-input',
        `expected prompts within the plan's ${name} ${workload[name]}, got one of ${job[name]}; ` +
          'plan for these prompts with flexplan optimize --input FILE',
      );
  }
}

/** The smaller of what the plan was made for and what the user allows now. */
function caps(plan: Pick<Plan, 'hardware'>, request: DeviceRequest): Record<Tier, number> {
  const capacity = { ...capacityBytes(plan.hardware.profile) };
  const requested = requestedCaps(request);
  for (const tier of TIERS) capacity[tier] = Math.min(capacity[tier], requested[tier] ?? Infinity);
  return capacity;
}

/** Rate to pace an emulated link at: as asked, else as the profile was told, else as it was measured. */
function emulatedLinkRate({ profile }: Plan['hardware'], request: DeviceRequest): number | undefined {
  const set = profile.environment?.['linkBytesPerSecond'];
  return request.linkBandwidth ?? (typeof set === 'number' ? set : profile.links.cpuToGpu?.bytesPerSecond.value);
}

/** The device that the plan was made for, unless another was asked for. Asks the machine only for CUDA. */
export async function planDevice(plan: Pick<Plan, 'hardware'>, request: DeviceRequest): Promise<DeviceSettings> {
  const wanted = request.device === undefined || request.device === 'auto' ? plan.hardware.device : request.device;
  const device = wanted === 'cuda' ? await requireCuda() : wanted;
  const rate = emulatedLinkRate(plan.hardware, request);
  return {
    device,
    capacityBytes: caps(plan, request),
    ...(device === 'emulated' && rate !== undefined && { linkBytesPerSecond: { cpuToGpu: rate, gpuToCpu: rate } }),
  };
}

async function requireCuda(): Promise<'cuda'> {
  const { withInstruments } = await import('../engine/instruments.js');
  await withInstruments(async (instruments) => resolveDevice('cuda', await instruments.systemInfo()));
  return 'cuda';
}
