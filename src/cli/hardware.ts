/** `--hw`: a path, or the name of a built-in profile. */
import { existsSync, readdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { FlexplanError } from '../errors.js';
import { capacityBytes, checkHardwareProfile, withCapacity } from '../hardware/check-profile.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { Tier } from '../tiers.js';
import { requestedCaps, type DeviceRequest } from './device.js';
import { checked, PACKAGE_ROOT, readJson } from './files.js';

const BUILT_IN = join(PACKAGE_ROOT, 'hardware-profiles');

function profileNames(): string[] {
  return readdirSync(BUILT_IN)
    .filter((file) => file.endsWith('.json'))
    .map((file) => basename(file, '.json'))
    .sort();
}

function readProfile(path: string): HardwareProfile {
  return checked(path, () => checkHardwareProfile(readJson(path, 'a hardware profile')));
}

export function builtInProfiles(): HardwareProfile[] {
  return profileNames().map((name) => readProfile(join(BUILT_IN, `${name}.json`)));
}

/** Throws `bad-input` that lists the built-in names when nothing is found. */
function loadHardware(nameOrPath: string): HardwareProfile {
  if (existsSync(nameOrPath)) return readProfile(nameOrPath);
  const name = basename(nameOrPath, '.json');
  const names = profileNames();
  if (names.includes(name)) return readProfile(join(BUILT_IN, `${name}.json`));
  throw new FlexplanError(
    'bad-input',
    `expected a hardware profile, got "${nameOrPath}", which is no file; ` +
      `measure one with flexplan profile, or use a built-in one: ${names.join(', ')}`,
  );
}

/** The machine as far as the user lets it be used: each tier's capacity, at most the cap. */
export function cappedProfile(nameOrPath: string, request: DeviceRequest): HardwareProfile {
  const profile = loadHardware(nameOrPath);
  const capacity = capacityBytes(profile);
  const caps = Object.entries(requestedCaps(request)).filter(([tier, cap]) => cap < capacity[tier as Tier]);
  return caps.length === 0 ? profile : withCapacity(profile, Object.fromEntries(caps));
}
