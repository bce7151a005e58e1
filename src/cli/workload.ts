/** The job: from numbers, or from a prompt file with its real token counts. */
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { FlexplanError } from '../errors.js';
import type { ModelConfig } from '../models/model-config.js';
import { workloadFromNumbers } from '../workload/blocks.js';
import type { Workload } from '../workload/workload.js';

export interface WorkloadRequest {
  readonly promptTokens?: number | undefined;
  readonly genTokens?: number | undefined;
  readonly numSequences?: number | undefined;
  readonly input?: string | undefined;
  readonly model: string;
}

/** Throws `usage` when the numbers are missing, or are given beside a file. */
export async function chosenWorkload(request: WorkloadRequest, model: ModelConfig): Promise<Workload> {
  const { promptTokens, genTokens, numSequences, input } = request;
  if (input !== undefined) {
    if (promptTokens !== undefined || genTokens !== undefined || numSequences !== undefined)
      throw new FlexplanError('usage', 'expected --input or numbers of tokens and sequences, got both; leave one out');
    return workloadOfFile(input, request.model, model);
  }
  if (promptTokens === undefined || genTokens === undefined)
    throw new FlexplanError(
      'usage',
      'expected --prompt-tokens N and --gen-tokens N, or --input FILE, got neither; for example --prompt-tokens 512 --gen-tokens 32',
    );
  return workloadFromNumbers(promptTokens, genTokens, numSequences);
}

async function workloadOfFile(input: string, modelPath: string, model: ModelConfig): Promise<Workload> {
  const { readPromptFile, workloadOfRequests } = await import('../batch/prompt-file.js');
  const { loadTokenizer } = await import('../engine/tokenizer.js');
  const folder = modelPath.endsWith('.json') ? dirname(modelPath) : modelPath;
  const tokenizer = existsSync(folder) ? await loadTokenizer(folder) : undefined;
  return workloadOfRequests(await readPromptFile(input, model, tokenizer), model);
}
