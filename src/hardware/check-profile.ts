/**
 * Hardware profiles from outside, and what a profile means for the model: rates as plain numbers, tiers with their
 * capacity.
 */
import { FlexplanError } from '../errors.js';
import { documentCheck } from '../schema.js';
import type { Link, Tier } from '../tiers.js';
import type { ComputeRates, HardwareProfile, LinkRate, MatmulPoint, NarrowMatmul } from './hardware-profile.js';
import { hardwareProfileSchema } from './profile-schema.js';

const REMEDY = 'correct the hardware profile or measure a new one with `flexplan profile`';
const checkDocument = documentCheck<HardwareProfile>(hardwareProfileSchema, 'hardware profile', REMEDY);

/** The profile of a JSON document. Throws `bad-input` with the path of the offending field. */
export function checkHardwareProfile(document: unknown): HardwareProfile {
  const profile = checkDocument(document);
  checkGpu(profile);
  for (const [where, rates] of Object.entries(profile.compute) as [string, ComputeRates | undefined][]) {
    if (!rates) continue;
    checkAscending(`compute.${where}.matmul`, rates.matmul);
    checkAscending(`compute.${where}.matmul4Bit`, rates.matmul4Bit ?? []);
    if (rates.narrowMatmul) checkNarrow(`compute.${where}.narrowMatmul`, rates.narrowMatmul);
  }
  return profile;
}

/** Whether the machine has a gpu tier. */
export function hasGpuTier({ device }: Pick<HardwareProfile, 'device'>): boolean {
  return device !== 'cpu';
}

/** Rates of the device that computes. The emulated GPU computes on the CPU unless its own rates were measured. */
export function deviceRates({ device, compute }: HardwareProfile): ComputeRates {
  return device === 'cpu' ? compute.cpu : (compute.gpu ?? compute.cpu);
}

/** Bytes that the engine may use on each tier; 0 for a tier that the machine has not. */
export function capacityBytes(profile: HardwareProfile): Record<Tier, number> {
  const { gpuBytes, cpuBytes, diskBytes } = profile.memory;
  return { gpu: hasGpuTier(profile) ? (gpuBytes?.value ?? 0) : 0, cpu: cpuBytes.value, disk: diskBytes.value };
}

/** The link's rate; `undefined` for a link that the machine has not. */
export function linkRate(profile: HardwareProfile, link: Link): LinkRate | undefined {
  if (link === 'diskToCpu' || link === 'cpuToDisk') return profile.links[link];
  return hasGpuTier(profile) ? profile.links[link] : undefined;
}

/** A machine with smaller (or larger) tiers: the caps that the user sets. */
export function withCapacity(profile: HardwareProfile, caps: Partial<Record<Tier, number>>): HardwareProfile {
  const set = (value: number) => ({ value, source: 'set' }) as const;
  const { gpu, cpu, disk } = caps;
  const memory = {
    ...profile.memory,
    ...(gpu === undefined ? {} : { gpuBytes: set(gpu) }),
    ...(cpu === undefined ? {} : { cpuBytes: set(cpu) }),
    ...(disk === undefined ? {} : { diskBytes: set(disk) }),
  };
  return { ...profile, memory };
}

function checkGpu({ device, memory, links, compute }: HardwareProfile): void {
  if (device === 'cpu') return;
  const missing = [
    memory.gpuBytes ? undefined : 'memory.gpuBytes',
    links.cpuToGpu ? undefined : 'links.cpuToGpu',
    links.gpuToCpu ? undefined : 'links.gpuToCpu',
    device === 'emulated' || compute.gpu ? undefined : 'compute.gpu',
  ].find((field) => field !== undefined);
  if (missing)
    throw new FlexplanError('bad-input', `expected field "${missing}" for device "${device}", got none; ${REMEDY}`);
}

function checkNarrow(field: string, { rows, wideRows, points }: NarrowMatmul): void {
  checkAscending(`${field}.points`, points);
  if (rows >= wideRows)
    throw new FlexplanError(
      'bad-input',
      `expected field "${field}.wideRows" to be more than ${rows}, got ${wideRows}; ${REMEDY}`,
    );
}

function checkAscending(field: string, points: readonly MatmulPoint[]): void {
  points.forEach(({ tokens }, p) => {
    const before = points[p - 1]?.tokens ?? 0;
    if (tokens <= before)
      throw new FlexplanError(
        'bad-input',
        `expected field "${field}.${p}.tokens" to be more than ${before}, got ${tokens}; ${REMEDY}`,
      );
  });
}
