/** Options that several commands share, and the readers of their values. */
import { FlexplanError } from '../errors.js';
import type { Device } from '../tiers.js';
import { parseBytes, parseRate } from '../units.js';
import type { OptionSpec } from './command.js';

type Reader<T> = (text: string) => T;

/** Throws `usage` on anything but digits. */
function readCount(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text.trim()) || !Number.isSafeInteger(value) || value < 1)
    throw new FlexplanError('usage', `expected a whole number of at least 1, got "${text}"`);
  return value;
}

/** Throws `usage` on anything but a plain number within the limits. */
export function readNumber(least: number, most: number): Reader<number> {
  return (text) => {
    const value = text.trim() === '' ? NaN : Number(text);
    if (!(value >= least && value <= most))
      throw new FlexplanError(
        'usage',
        most === Infinity
          ? `expected a number of at least ${least}, got "${text}"`
          : `expected a number from ${least} to ${most}, got "${text}"`,
      );
    return value;
  };
}

/** Throws `usage` naming the words that would do. */
function readChoice<T extends string>(...choices: readonly T[]): Reader<T> {
  return (text) => {
    const choice = choices.find((word) => word === text);
    if (choice === undefined) throw new FlexplanError('usage', `expected one of ${choices.join(', ')}, got "${text}"`);
    return choice;
  };
}

/** Throws `usage` on anything but whole numbers between commas. */
export function readIds(text: string): readonly number[] {
  const ids = text.split(',').map((part) => (/^\s*\d+\s*$/.test(part) ? Number(part) : NaN));
  if (ids.some((id) => !Number.isSafeInteger(id)))
    throw new FlexplanError('usage', `expected token ids such as 2,15,7, got "${text}"`);
  return ids;
}

function readShare(text: string): number {
  const share = text.trim() === '' ? NaN : Number(text);
  if (!(share > 0 && share <= 1))
    throw new FlexplanError('usage', `expected a number above 0 and at most 1, got "${text}"`);
  return share;
}

function readBits(text: string): 16 | 4 {
  return readChoice('16', '4')(text) === '16' ? 16 : 4;
}

function readBitsOrAuto(text: string): 16 | 4 | 'auto' {
  return text === 'auto' ? 'auto' : readChoice('16', '4', 'auto')(text) === '16' ? 16 : 4;
}

/** Puts the option's name in front of what its reader says. */
function option<T extends NonNullable<unknown>>(
  flags: string,
  help: string,
  read: Reader<T>,
): OptionSpec<T | undefined> {
  const parse = (text: string): T => {
    try {
      return read(text);
    } catch (error) {
      throw error instanceof FlexplanError
        ? new FlexplanError(error.code, `${flags.split(' ')[0]}: ${error.message}`)
        : error;
    }
  };
  return { flags, help, parse };
}

const same: Reader<string> = (text) => text;

export const text = (flags: string, help: string): OptionSpec<string | undefined> => option(flags, help, same);
export const flag = (flags: string, help: string): OptionSpec<boolean | undefined> => ({ flags, help });
export const count = (flags: string, help: string): OptionSpec<number | undefined> => option(flags, help, readCount);
export const size = (flags: string, help: string): OptionSpec<number | undefined> => option(flags, help, parseBytes);
const rate = (flags: string, help: string): OptionSpec<number | undefined> => option(flags, help, parseRate);
export const bits = (flags: string, help: string): OptionSpec<16 | 4 | undefined> => option(flags, help, readBits);
export const choice = <T extends string>(
  flags: string,
  help: string,
  ...choices: readonly T[]
): OptionSpec<T | undefined> => option(flags, help, readChoice(...choices));
export const bitsOrAuto = (flags: string, help: string): OptionSpec<16 | 4 | 'auto' | undefined> =>
  option(flags, help, readBitsOrAuto);
export const number = (flags: string, help: string, least = 0, most = Infinity): OptionSpec<number | undefined> =>
  option(flags, help, readNumber(least, most));
/** Repeatable: values gather in a list. */
export const list = <T extends NonNullable<unknown>>(
  flags: string,
  help: string,
  read: Reader<T>,
): OptionSpec<readonly T[] | undefined> => option(flags, help, read) as OptionSpec<readonly T[] | undefined>;
export const required = <T>(spec: OptionSpec<T | undefined>): OptionSpec<NonNullable<T>> => ({
  ...(spec as OptionSpec<NonNullable<T>>),
  required: true,
});

export const modelOption = text('--model <model>', 'folder or config.json of Hugging Face form, or a built-in name');
export const hardwareOption = text('--hw <profile>', 'hardware profile: a path, or a name from `flexplan profiles`');
export const workloadOptions = {
  promptTokens: count('--prompt-tokens <n>', 'tokens of each prompt'),
  genTokens: count('--gen-tokens <n>', 'tokens generated for each prompt'),
  numSequences: count('--num-sequences <n>', 'number of prompts in the job (default: as many as fill a block)'),
  input: text('--input <file>', 'take the job from a prompt file, with its real token counts'),
};
export const capacityOptions = {
  gpuMemory: size('--gpu-memory <size>', 'use at most so much GPU memory'),
  cpuMemory: size('--cpu-memory <size>', 'use at most so much RAM'),
  disk: size('--disk <size>', 'use at most so much disk'),
};
export const sparseValuesOptions = {
  sparseValues: option(
    '--sparse-values <fraction>',
    "attention reads V only of this share of a query's positions, those of the highest scores (not on cuda)",
    readShare,
  ),
};
export const quantizationCacheOptions = {
  quantizationCache: flag('--no-quantization-cache', 'do not keep 4-bit weights for the next time'),
  quantizationCacheLimit: size(
    '--quantization-cache-limit <size>',
    'keep 4-bit weights only in so much disk (default: half of what is free)',
  ),
};
export const deviceOptions = {
  device: option<Device | 'auto'>(
    '--device <device>',
    'auto, cuda, cpu or emulated (auto: cuda if there is one, else cpu)',
    readChoice('auto', 'cuda', 'cpu', 'emulated'),
  ),
  linkBandwidth: rate('--link-bandwidth <rate>', 'emulated device: rate of each direction of its link, such as 4GB/s'),
};
