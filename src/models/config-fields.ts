/**
 * Checked access to the fields of a Hugging Face `config.json`. Every error names the model, the field and what it
 * held.
 */
import { FlexplanError } from '../errors.js';
import type { DataType } from './model-config.js';

type Json = Readonly<Record<string, unknown>>;

/** How a value looks in a message: JSON, cut where it is long. */
function shown(value: unknown): string {
  const text = value === undefined ? 'nothing' : JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

/** Token ids and rows are 32-bit numbers in the engine. */
const MAX_SIZE = 2 ** 31 - 1;
/** Far beyond every model, and few enough to list. */
const MAX_PARTS = 100_000;

/**
 * One JSON object. An absent or null field takes the default where one is given; where none is, it is `bad-input`.
 * `path` is what messages call the object, such as `config.json of my-model`.
 */
export class ConfigFields {
  readonly #json: Json;

  constructor(
    json: unknown,
    readonly path: string,
  ) {
    if (typeof json !== 'object' || json === null || Array.isArray(json)) {
      throw new FlexplanError('bad-input', `expected ${path} to be a JSON object, got ${shown(json)}`);
    }
    this.#json = json as Json;
  }

  /** The raw value; null counts as absent. */
  get(name: string): unknown {
    return this.#json[name] ?? undefined;
  }

  wrong(name: string, expected: string): FlexplanError {
    return new FlexplanError(
      'bad-input',
      `expected ${name} of ${this.path} to be ${expected}, got ${shown(this.get(name))}`,
    );
  }

  /** Where the file asks for something that the engine does not compute. */
  unsupported(name: string, supported: string): FlexplanError {
    return new FlexplanError(
      'unsupported',
      `expected ${name} of ${this.path} to be ${supported}, got ${shown(this.get(name))}, which flexplan does not compute; choose another model`,
    );
  }

  #value<T>(name: string, fallback: T | undefined, expected: string, valid: (value: unknown) => value is T): T {
    const value = this.get(name) ?? fallback;
    if (!valid(value)) throw this.wrong(name, expected);
    return value;
  }

  /** A size or a number of things that exist, from 1 to `most`. */
  count(name: string, fallback?: number, most = MAX_SIZE): number {
    const expected = `a positive whole number of at most ${most}`;
    const valid = (v: unknown): v is number => Number.isSafeInteger(v) && (v as number) > 0 && (v as number) <= most;
    return this.#value(name, fallback, expected, valid);
  }

  /** How many layers or experts there are: each is a list of tensors. */
  parts(name: string): number {
    return this.count(name, undefined, MAX_PARTS);
  }

  positive(name: string, fallback?: number): number {
    return this.#value(
      name,
      fallback,
      'a positive number',
      (v): v is number => typeof v === 'number' && Number.isFinite(v) && v > 0,
    );
  }

  flag(name: string, fallback: boolean): boolean {
    return this.#value(name, fallback, 'true or false', (v) => typeof v === 'boolean');
  }

  /** Translates a word through a table; a word that is not in it is `unsupported`. */
  word<T>(name: string, table: Readonly<Record<string, T>>, fallback?: string): T {
    const word = this.#value(name, fallback, 'a text', (v) => typeof v === 'string');
    if (!Object.hasOwn(table, word)) throw this.unsupported(name, `one of ${Object.keys(table).join(', ')}`);
    return table[word]!;
  }

  /** A token id, or a list of them. Absent: none. */
  tokenIds(name: string): readonly number[] {
    const value = this.get(name) ?? [];
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    if (!ids.every((id) => Number.isSafeInteger(id) && (id as number) >= 0)) {
      throw this.wrong(name, 'a token id or a list of token ids');
    }
    return ids as number[];
  }

  object(name: string): ConfigFields | undefined {
    const value = this.get(name);
    return value === undefined ? undefined : new ConfigFields(value, `${name} of ${this.path}`);
  }

  /** Refuses each field whose value is not one that leaves the computation as flexplan does it. */
  require(neutral: Readonly<Record<string, readonly unknown[]>>): void {
    for (const [name, values] of Object.entries(neutral)) {
      const value = this.get(name);
      if (value !== undefined && !values.includes(value)) {
        throw this.unsupported(name, ['absent', ...values.map(shown)].join(' or '));
      }
    }
  }
}

const DATA_TYPES: Readonly<Record<string, DataType>> = {
  float32: 'float32',
  float16: 'float16',
  bfloat16: 'bfloat16',
};

/** `dtype` (newer files) or `torch_dtype`; files without either mean float32. */
export function dataType(fields: ConfigFields): DataType {
  return fields.word(fields.get('dtype') === undefined ? 'torch_dtype' : 'dtype', DATA_TYPES, 'float32');
}
