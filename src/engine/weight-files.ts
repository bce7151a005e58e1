/** All tensors of a model folder: one `model.safetensors`, or shards that an index names. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { FlexplanError } from '../errors.js';
import { readJsonIfThere } from './json-file.js';
import { type FileTensor, readSafetensorsHeader } from './safetensors.js';

const SINGLE_FILE = 'model.safetensors';
const INDEX_FILE = 'model.safetensors.index.json';

async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (status) => status.isFile(),
    () => false,
  );
}

export async function hasWeights(folder: string): Promise<boolean> {
  return (await isFile(join(folder, SINGLE_FILE))) || isFile(join(folder, INDEX_FILE));
}

/** Name -> tensor. Reads headers only. Throws `bad-input` naming the file that is missing or malformed. */
export async function readWeightFiles(folder: string): Promise<Map<string, FileTensor>> {
  if (await isFile(join(folder, SINGLE_FILE))) return readSafetensorsHeader(join(folder, SINGLE_FILE));
  const index = await readJsonIfThere(join(folder, INDEX_FILE));
  if (index === undefined) {
    throw new FlexplanError(
      'bad-input',
      `expected ${SINGLE_FILE} or ${INDEX_FILE} in ${folder}, got neither; download the model's weights in safetensors form`,
    );
  }
  return readShards(folder, weightMap(join(folder, INDEX_FILE), index));
}

/** Tensor name -> shard file name, as the index says. */
function weightMap(indexPath: string, index: unknown): Map<string, string> {
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw new FlexplanError('bad-input', `expected weight_map in ${indexPath}, got none; download it again`);
  }
  const entries = Object.entries(map as Record<string, unknown>);
  for (const [tensor, file] of entries) {
    // File names come from a download: none may lead out of the folder.
    if (typeof file !== 'string' || !/^[^/\\]+\.safetensors$/.test(file)) {
      throw new FlexplanError(
        'bad-input',
        `expected weight_map of ${indexPath} to name a .safetensors file of its own folder for ${tensor}, got ${JSON.stringify(file)}; download it again`,
      );
    }
  }
  return new Map(entries as [string, string][]);
}

async function readShards(folder: string, map: Map<string, string>): Promise<Map<string, FileTensor>> {
  const shardNames = [...new Set(map.values())].sort();
  const headers = await Promise.all(shardNames.map((name) => readSafetensorsHeader(join(folder, name))));
  const shards = new Map(shardNames.map((name, i) => [name, headers[i]!]));
  const tensors = new Map<string, FileTensor>();
  for (const [name, shard] of map) {
    const tensor = shards.get(shard)!.get(name);
    if (!tensor) {
      throw new FlexplanError(
        'bad-input',
        `expected ${name} in ${join(folder, shard)}, as ${INDEX_FILE} says, got no such tensor; download both again`,
      );
    }
    tensors.set(name, tensor);
  }
  return tensors;
}
