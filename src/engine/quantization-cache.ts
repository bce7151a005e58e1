/**
 * Where a model's 4-bit weights are kept, so that they are quantized once (docs/quantization.md). The engine writes and
 * reads the file.
 */
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import { access, mkdir, stat, statfs } from 'node:fs/promises';
import { homedir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { quantizedBytes } from '../models/tensors.js';
import { MIB } from '../units.js';
import type { ModelFolder } from './model-folder.js';

export interface QuantizationCacheOptions {
  /**
   * Folder of the file. Absent: the model's own, or that of the user's caches where nothing can be written beside the
   * model.
   */
  readonly directory?: string;
  /** Larger files are not kept, nor are those that would take more than half of what is free there. */
  readonly limitBytes?: number;
  /** Smaller files are not kept: quantizing takes no time worth a file. Absent: 64 MiB. */
  readonly leastBytes?: number;
}

const LEAST_BYTES = 64 * MIB;
const FILE_NAME = '.flexplan-4bit-weights';

/** Path of the file, or '' where none is to be kept. */
export async function quantizationCachePath(
  folder: ModelFolder,
  { directory, limitBytes, leastBytes = LEAST_BYTES }: QuantizationCacheOptions,
): Promise<string> {
  const bytes = storedBytes(folder);
  if (bytes < leastBytes || bytes > (limitBytes ?? Infinity)) return '';
  const path = await placeOf(folder, directory);
  if (path === undefined) return '';
  if (!(await isFile(path)) && bytes > (await freeBytes(dirname(path))) / 2) return '';
  return path;
}

function storedBytes({ tensors }: ModelFolder): number {
  return tensors.reduce((sum, { quantizable, rows, cols }) => sum + (quantizable ? rows * quantizedBytes(cols) : 0), 0);
}

/**
 * Beside the model the file has one name. Elsewhere the folder of the model is part of it, since many may lie there.
 */
async function placeOf(folder: ModelFolder, directory: string | undefined): Promise<string | undefined> {
  if (directory === undefined && (await isWritable(folder.path))) return join(folder.path, FILE_NAME);
  const cache = directory ?? join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'flexplan');
  const made = await mkdir(cache, { recursive: true }).then(
    () => isWritable(cache),
    () => false,
  );
  const id = createHash('sha256').update(folder.path).digest('hex').slice(0, 16);
  return made ? join(cache, `${basename(folder.path)}-${id}${FILE_NAME}`) : undefined;
}

async function isWritable(path: string): Promise<boolean> {
  return access(path, constants.W_OK).then(
    () => true,
    () => false,
  );
}

async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (status) => status.isFile(),
    () => false,
  );
}

async function freeBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}
