/** A model on disk, in Hugging Face form: `config.json`, safetensors, and what the tokenizer needs. */
import { stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { FlexplanError } from '../errors.js';
import { readModelConfig } from '../models/config-reader.js';
import type { DataType, ModelConfig } from '../models/model-config.js';
import { readJsonIfThere } from './json-file.js';
import { type LocatedTensor, locateTensors } from './tensor-names.js';
import { hasWeights, readWeightFiles } from './weight-files.js';

export interface ModelFolder {
  readonly path: string;
  /** `dtype` is that of the matrices in the files, whatever config.json says. */
  readonly model: ModelConfig;
  readonly tensors: readonly LocatedTensor[];
}

const FILE_DATA_TYPES: Readonly<Record<string, DataType>> = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' };

/** Opens a folder (or the `config.json` in it) and finds every tensor. Reads headers only. */
export async function openModelFolder(path: string): Promise<ModelFolder> {
  const folder = await folderOf(path);
  const model = await readFolderConfig(folder);
  return withStorageType(folder, model, locateTensors(model, await readWeightFiles(folder)));
}

/**
 * The model's shape alone, for planning: the weights need not be there. Where they are, they are checked and give the
 * dtype.
 */
export async function loadModelConfig(path: string): Promise<ModelConfig> {
  const folder = await folderOf(path);
  return (await hasWeights(folder)) ? (await openModelFolder(folder)).model : readFolderConfig(folder);
}

async function folderOf(path: string): Promise<string> {
  const status = await stat(path).catch(() => undefined);
  if (!status) {
    throw new FlexplanError('bad-input', `expected a model folder or its config.json at ${path}, got nothing there`);
  }
  return status.isDirectory() ? resolve(path) : dirname(resolve(path));
}

async function readFolderConfig(folder: string): Promise<ModelConfig> {
  const config = await readJsonIfThere(join(folder, 'config.json'));
  if (config === undefined) {
    throw new FlexplanError(
      'bad-input',
      `expected config.json in ${folder}, got none; is it a Hugging Face model folder?`,
    );
  }
  return readModelConfig(config, basename(folder), await readJsonIfThere(join(folder, 'generation_config.json')));
}

export function fileDataType({ file }: LocatedTensor, role: string): DataType {
  const dtype = FILE_DATA_TYPES[file.dtype];
  if (dtype === undefined) {
    throw new FlexplanError(
      'unsupported',
      `expected ${role} in ${file.path} to be F32, F16 or BF16, got ${file.dtype}; choose the model in one of those formats`,
    );
  }
  return dtype;
}

/** Arithmetic rounds to one storage type, so all matrices must share it; vectors are widened to fp32 and may differ. */
function withStorageType(path: string, model: ModelConfig, tensors: readonly LocatedTensor[]): ModelFolder {
  const matrices = tensors.filter((tensor) => tensor.kind !== 'vector');
  const first = matrices[0]!;
  const dtype = fileDataType(first, first.role);
  const other = matrices.find((tensor) => fileDataType(tensor, tensor.role) !== dtype);
  if (other) {
    throw new FlexplanError(
      'unsupported',
      `expected all matrices of ${model.name} in one number format (${first.role}: ${first.file.dtype}), got ${other.file.dtype} for ${other.role} in ${other.file.path}; convert the model to one format`,
    );
  }
  return { path, model: { ...model, dtype }, tensors };
}
