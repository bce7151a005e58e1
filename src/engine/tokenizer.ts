/** Text <-> token ids by a model folder's `tokenizer.json`, and chats -> text by its template. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import { FlexplanError } from '../errors.js';
import { readJsonIfThere } from './json-file.js';

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
}

/** What is used of the library, whose own declarations do not resolve under NodeNext. */
interface LibraryTokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(ids: number[], options: { skip_special_tokens: boolean }): string;
  id_to_token(id: number): string | undefined;
}
const LibraryTokenizer = Library as unknown as new (tokenizerJson: object, config: object) => LibraryTokenizer;

/** The split of GPT-2's byte-level tokenizers, built into the library with JavaScript's idea of white space. */
const BYTE_LEVEL_SPLIT = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

type Json = Readonly<Record<string, unknown>>;

/**
 * JavaScript's `\s` holds U+FEFF and lacks U+0085, so the library's built-in split cuts differently from the reference
 * there. Written out as a pattern of the file the same split goes through the library's faithful translation.
 */
function withUnicodeWhiteSpace(preTokenizer: unknown): unknown {
  const step = preTokenizer as Json | null;
  if (step?.['type'] === 'Sequence') {
    return { ...step, pretokenizers: (step['pretokenizers'] as unknown[]).map(withUnicodeWhiteSpace) };
  }
  const splits = step?.['type'] === 'ByteLevel' && (step['use_regex'] ?? true) === true;
  // A prefix space would have to come before the split.
  if (!splits || step['add_prefix_space'] === true) return preTokenizer;
  const split = { type: 'Split', pattern: { Regex: BYTE_LEVEL_SPLIT }, behavior: 'Isolated', invert: false };
  return { type: 'Sequence', pretokenizers: [split, { ...step, use_regex: false }] };
}

export class Tokenizer {
  readonly #tokenizer: LibraryTokenizer;
  readonly #config: Json;
  readonly #chatTemplate: Template | undefined;

  constructor(tokenizerJson: object, config: Json, chatTemplate?: string) {
    const json = tokenizerJson as Json;
    this.#tokenizer = new LibraryTokenizer(
      { ...json, pre_tokenizer: withUnicodeWhiteSpace(json['pre_tokenizer'] ?? null) },
      { ...config, clean_up_tokenization_spaces: false },
    );
    this.#config = config;
    this.#chatTemplate = chatTemplate === undefined ? undefined : new Template(chatTemplate);
  }

  /** With the special tokens that tokenizer.json puts around a text, unless told otherwise. */
  encode(text: string, { addSpecialTokens = true } = {}): number[] {
    return understood('tokenizer.json', () => {
      const { ids } = this.#tokenizer.encode(text, { add_special_tokens: addSpecialTokens });
      if (!ids.every((id) => Number.isSafeInteger(id))) throw new Error('a token without an id');
      return ids;
    });
  }

  /** Ids that the tokenizer does not know (padding of the vocabulary) decode to nothing. */
  decode(ids: ArrayLike<number>, { skipSpecialTokens = true } = {}): string {
    const known = Array.from(ids).filter((id) => this.#tokenizer.id_to_token(id) !== undefined);
    if (known.length === 0) return '';
    return understood('tokenizer.json', () =>
      this.#tokenizer.decode(known, { skip_special_tokens: skipSpecialTokens }),
    );
  }

  /** A chat as the model was trained to see it, up to where its reply begins. The template puts the special tokens. */
  encodeChat(messages: readonly ChatMessage[]): number[] {
    if (!this.#chatTemplate) {
      throw new FlexplanError(
        'unsupported',
        'expected a chat template in the model folder, got none; use prompts for /v1/completions, or a chat model',
      );
    }
    return this.encode(this.#render(this.#chatTemplate, messages), { addSpecialTokens: false });
  }

  #render(template: Template, messages: readonly ChatMessage[]): string {
    try {
      return template.render({
        messages,
        add_generation_prompt: true,
        bos_token: specialToken(this.#config['bos_token']),
        eos_token: specialToken(this.#config['eos_token']),
      });
    } catch (error) {
      const reason = (error as Error).message;
      throw new FlexplanError(
        'bad-input',
        `expected messages that the chat template takes, got "${reason}"; change them`,
      );
    }
  }
}

/** The library takes most files as they are, and stumbles over what it does not know only when it comes to it. */
function understood<T>(place: string, use: () => T): T {
  try {
    return use();
  } catch (error) {
    throw new FlexplanError(
      'unsupported',
      `expected a tokenizer of a known kind in ${place}, got "${(error as Error).message}"; use --prompt-ids`,
    );
  }
}

/** A special token of tokenizer_config.json: its text, or an object around it. */
function specialToken(token: unknown): string {
  const content = typeof token === 'object' ? (token as { content?: unknown } | null)?.content : token;
  return typeof content === 'string' ? content : '';
}

/** The tokenizer of a model folder, or undefined where it has no `tokenizer.json`. */
export async function loadTokenizer(folder: string): Promise<Tokenizer | undefined> {
  const json = await readJsonIfThere(join(folder, 'tokenizer.json'));
  if (json === undefined) return undefined;
  const config = ((await readJsonIfThere(join(folder, 'tokenizer_config.json'))) ?? {}) as Json;
  const template = await chatTemplate(folder, config);
  return understood(folder, () => new Tokenizer(json as object, config, template));
}

/** One template, or several by name of which `default` is meant; newer folders keep it in a file of its own. */
async function chatTemplate(folder: string, config: Json): Promise<string | undefined> {
  const file = await readFile(join(folder, 'chat_template.jinja'), 'utf8').catch(() => undefined);
  const template = file ?? config['chat_template'];
  if (!Array.isArray(template)) return typeof template === 'string' ? template : undefined;
  const named = template as ({ name?: unknown; template?: unknown } | null)[];
  const chosen = named.find((entry) => entry?.name === 'default')?.template;
  return typeof chosen === 'string' ? chosen : undefined;
}
