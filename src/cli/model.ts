/** `--model`: a folder or config.json, or the name of a built-in model. */
import { existsSync } from 'node:fs';
import type { ModelConfig } from '../models/model-config.js';

/** The shape alone, for planning. Throws `bad-input` with the nearest names when nothing is found. */
export async function loadModel(nameOrPath: string): Promise<ModelConfig> {
  if (existsSync(nameOrPath)) {
    const { loadModelConfig } = await import('../engine/model-folder.js');
    return loadModelConfig(nameOrPath);
  }
  const { findModel } = await import('../models/registry.js');
  return findModel(nameOrPath);
}
