/** One line of a prompt file -> one request, or why it cannot be served. */
import { FlexplanError } from '../errors.js';
import type { ChatMessage } from '../engine/tokenizer.js';
import { DEFAULT_MAX_TOKENS } from '../engine/generate.js';

const COMPLETIONS_URL = '/v1/completions';
export const CHAT_URL = '/v1/chat/completions';
type RequestUrl = typeof COMPLETIONS_URL | typeof CHAT_URL;

type RequestInput =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'ids'; readonly ids: readonly number[] }
  | { readonly kind: 'chat'; readonly messages: readonly ChatMessage[] };

export interface BatchRequest {
  readonly customId: string;
  readonly url: RequestUrl;
  readonly input: RequestInput;
  readonly maxTokens: number;
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number;
  readonly stopStrings: readonly string[];
}

/** A line that cannot be served. */
export interface BadRequest {
  readonly customId: string;
  readonly error: { readonly code: string; readonly message: string };
}

type Json = Readonly<Record<string, unknown>>;

/**
 * Fields that ask for nothing, or whose listed values do. Anything else would be answered wrongly, so it is refused.
 */
const NEUTRAL_FIELDS: Readonly<Record<string, readonly unknown[] | 'any'>> = {
  model: 'any',
  user: 'any',
  metadata: 'any',
  store: 'any',
  service_tier: 'any',
  n: [1],
  best_of: [1],
  stream: [false],
  echo: [false],
  logprobs: [false],
  presence_penalty: [0],
  frequency_penalty: [0],
};

const SERVED_FIELDS = new Set([
  'prompt',
  'messages',
  'max_tokens',
  'max_completion_tokens',
  'temperature',
  'top_p',
  'seed',
  'stop',
]);

const ENVELOPE_FIELDS = ['custom_id', 'method', 'url', 'body'];

function bad(expected: string, got: unknown): FlexplanError {
  const text = (got === undefined ? 'nothing' : JSON.stringify(got)).slice(0, 80);
  return new FlexplanError('bad-input', `expected ${expected}, got ${text}; mend the line`);
}

/** @param lineNumber from 1; the id of a line that has none */
export function parseRequest(line: string, lineNumber: number): BatchRequest | BadRequest {
  let customId = String(lineNumber);
  try {
    const json = parseObject(line);
    const id = json['custom_id'] ?? customId;
    if (typeof id !== 'string' || id === '') throw bad('custom_id to be a text', id);
    customId = id;
    return { customId, ...readRequest(json, customId) };
  } catch (error) {
    if (!(error instanceof FlexplanError)) throw error;
    return { customId, error: { code: error.code, message: `line ${lineNumber}: ${error.message}` } };
  }
}

export function isBad(request: BatchRequest | BadRequest): request is BadRequest {
  return 'error' in request;
}

function parseObject(line: string): Json {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (error) {
    throw new FlexplanError('bad-input', `expected JSON, got ${(error as Error).message}; mend the line`);
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json)) throw bad('a JSON object', json);
  return json as Json;
}

function readRequest(json: Json, customId: string): Omit<BatchRequest, 'customId'> {
  const method = json['method'] ?? 'POST';
  if (method !== 'POST') throw bad('method "POST"', method);
  const givenUrl = json['url'];
  const body = json['body'] ?? withoutEnvelope(json);
  if (typeof body !== 'object' || Array.isArray(body)) throw bad('body to be a JSON object', body);
  const fields = body as Json;
  refuseUnknownFields(fields);
  const url = givenUrl ?? (fields['messages'] === undefined ? COMPLETIONS_URL : CHAT_URL);
  if (url !== COMPLETIONS_URL && url !== CHAT_URL) throw bad(`url ${COMPLETIONS_URL} or ${CHAT_URL}`, url);
  return {
    url,
    input: url === CHAT_URL ? readMessages(fields) : readPrompt(fields),
    ...readSampling(fields, customId),
  };
}

/** The body of a plain line: all that is not about the request itself. */
function withoutEnvelope(json: Json): Json {
  return Object.fromEntries(Object.entries(json).filter(([name]) => !ENVELOPE_FIELDS.includes(name)));
}

function refuseUnknownFields(body: Json): void {
  for (const [name, value] of Object.entries(body)) {
    const neutral = Object.hasOwn(NEUTRAL_FIELDS, name) ? NEUTRAL_FIELDS[name] : undefined;
    if (SERVED_FIELDS.has(name) || neutral === 'any' || value === null || neutral?.includes(value)) continue;
    const supported = neutral
      ? `${name} to be ${neutral.join(' or ')}`
      : `only ${[...SERVED_FIELDS].join(', ')} in body`;
    throw new FlexplanError(
      'unsupported',
      `expected ${supported}, got ${name}: ${JSON.stringify(value).slice(0, 80)}; leave it out`,
    );
  }
}

/** A text or token ids; a list of one of either is accepted too. */
function readPrompt(body: Json): RequestInput {
  const prompt = body['prompt'];
  const single: unknown =
    Array.isArray(prompt) && prompt.length === 1 && typeof prompt[0] !== 'number' ? prompt[0] : prompt;
  if (typeof single === 'string') return { kind: 'text', text: single };
  if (Array.isArray(single) && single.every((id) => Number.isSafeInteger(id))) {
    return { kind: 'ids', ids: single as number[] };
  }
  throw bad('prompt to be one text or one list of token ids', prompt);
}

function readMessages(body: Json): RequestInput {
  const messages = body['messages'];
  if (!Array.isArray(messages) || messages.length === 0) throw bad('messages to be a list of at least one', messages);
  return { kind: 'chat', messages: messages.map(readMessage) };
}

function readMessage(message: unknown): ChatMessage {
  const { role, content } = (message ?? {}) as Json;
  if (typeof role !== 'string') throw bad('every message to have a role', message);
  if (typeof content === 'string') return { role, content };
  const parts = Array.isArray(content) ? (content as Json[]) : [undefined];
  if (parts.some((part) => part?.['type'] !== 'text' || typeof part['text'] !== 'string')) {
    throw bad('the content of every message to be text', content);
  }
  return { role, content: parts.map((part) => part!['text']).join('') };
}

function readSampling(
  body: Json,
  customId: string,
): Pick<BatchRequest, 'maxTokens' | 'temperature' | 'topP' | 'seed' | 'stopStrings'> {
  const tokensField = body['max_completion_tokens'] === undefined ? 'max_tokens' : 'max_completion_tokens';
  return {
    maxTokens: readNumber(body, tokensField, DEFAULT_MAX_TOKENS, 'a whole number of at least 1', isCount),
    temperature: readNumber(body, 'temperature', 0, 'a number from 0 to 2', (t) => t >= 0 && t <= 2),
    topP: readNumber(body, 'top_p', 1, 'a number above 0 and at most 1', (p) => p > 0 && p <= 1),
    seed: readNumber(body, 'seed', hash(customId), 'a whole number', Number.isSafeInteger),
    stopStrings: readStop(body['stop'] ?? []),
  };
}

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 1;

function readNumber(
  body: Json,
  name: string,
  fallback: number,
  expected: string,
  valid: (n: number) => boolean,
): number {
  const value = body[name] ?? fallback;
  if (typeof value !== 'number' || !valid(value)) throw bad(`${name} to be ${expected}`, value);
  return value;
}

function readStop(stop: unknown): readonly string[] {
  const strings: unknown[] = Array.isArray(stop) ? stop : [stop];
  if (!strings.every((text) => typeof text === 'string' && text !== '')) throw bad('stop to be a text or texts', stop);
  return strings as string[];
}

/** FNV-1a of the id: requests without a seed differ from each other and repeat themselves. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return value;
}
