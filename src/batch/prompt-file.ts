/** A prompt file -> requests with token ids, ready to run, and the lines that cannot be served. */
import { readFile } from 'node:fs/promises';
import { FlexplanError } from '../errors.js';
import { workloadOf } from '../engine/generate.js';
import type { Sequence } from '../engine/engine.js';
import { promptFault } from '../engine/sequences.js';
import type { Tokenizer } from '../engine/tokenizer.js';
import type { ModelConfig } from '../models/model-config.js';
import type { Workload } from '../workload/workload.js';
import { type BadRequest, type BatchRequest, isBad, parseRequest } from './request.js';

export interface PreparedRequest extends BatchRequest {
  readonly promptIds: readonly number[];
}

export interface PromptFile {
  /** The text as read: what a resumed job must find unchanged. */
  readonly text: string;
  /** In file order. */
  readonly requests: readonly PreparedRequest[];
  readonly badRequests: readonly BadRequest[];
}

/** Throws `bad-input` when the file cannot be read, repeats an id, or holds nothing that can be served. */
export async function readPromptFile(
  path: string,
  model: ModelConfig,
  tokenizer: Tokenizer | undefined,
): Promise<PromptFile> {
  const text = await readFile(path, 'utf8').catch((error: Error) => {
    throw new FlexplanError('bad-input', `expected a prompt file at ${path}, got ${error.message}; check the path`);
  });
  return preparePrompts(text, path, model, tokenizer);
}

export function preparePrompts(
  text: string,
  path: string,
  model: ModelConfig,
  tokenizer: Tokenizer | undefined,
): PromptFile {
  const parsed = parseLines(text, path).map((request) =>
    isBad(request) ? request : prepare(request, model, tokenizer),
  );
  const badRequests = parsed.filter(isBad);
  const requests = parsed.filter((request): request is PreparedRequest => !isBad(request));
  if (requests.length === 0) {
    const reason = badRequests[0]?.error.message ?? 'no lines';
    throw new FlexplanError(
      'bad-input',
      `expected at least one request in ${path} that can be served, got none (${reason})`,
    );
  }
  return { text, requests, badRequests };
}

/** Blank lines are skipped but counted. A repeated id would make two results that cannot be told apart. */
function parseLines(text: string, path: string): (BatchRequest | BadRequest)[] {
  const lineOfId = new Map<string, number>();
  const requests: (BatchRequest | BadRequest)[] = [];
  text.split(/\r?\n/).forEach((line, index) => {
    if (line.trim() === '') return;
    const request = parseRequest(index === 0 ? line.replace(/^\uFEFF/, '') : line, index + 1);
    const earlier = lineOfId.get(request.customId);
    if (earlier !== undefined) {
      throw new FlexplanError(
        'bad-input',
        `expected every custom_id of ${path} once, got "${request.customId}" on lines ${earlier} and ${index + 1}; rename one`,
      );
    }
    lineOfId.set(request.customId, index + 1);
    requests.push(request);
  });
  return requests;
}

function prepare(
  request: BatchRequest,
  model: ModelConfig,
  tokenizer: Tokenizer | undefined,
): PreparedRequest | BadRequest {
  try {
    const promptIds = encode(request, tokenizer);
    const fault = promptFault(model, promptIds, request.maxTokens);
    if (fault) throw new FlexplanError('bad-input', fault);
    return { ...request, promptIds };
  } catch (error) {
    if (!(error instanceof FlexplanError)) throw error;
    return { customId: request.customId, error: { code: error.code, message: error.message } };
  }
}

function encode({ input }: BatchRequest, tokenizer: Tokenizer | undefined): readonly number[] {
  if (input.kind === 'ids') return input.ids;
  if (!tokenizer) {
    throw new FlexplanError(
      'bad-input',
      'expected tokenizer.json in the model folder, got none; give prompts as token ids',
    );
  }
  return input.kind === 'text' ? tokenizer.encode(input.text) : tokenizer.encodeChat(input.messages);
}

export function sequenceOf(request: PreparedRequest, model: ModelConfig): Sequence {
  return {
    promptIds: Int32Array.from(request.promptIds),
    maxTokens: request.maxTokens,
    temperature: request.temperature,
    topP: request.topP,
    seed: request.seed,
    stopIds: Int32Array.from(model.eosTokenIds),
    logitsSteps: 0,
    scorePrompt: false,
  };
}

/** What a plan for these requests is made for. */
export function workloadOfRequests({ requests }: PromptFile, model: ModelConfig): Workload {
  return workloadOf(requests.map((request) => sequenceOf(request, model)));
}
