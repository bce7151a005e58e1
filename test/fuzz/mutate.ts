/** Documents with something wrong in them: a good one, changed in one to three places. */
import fc from 'fast-check';
import { FlexplanError } from '../../src/errors.js';

/** What files were seen to hold where something else belongs, and what breaks careless code. */
const NASTY: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -0,
  -1,
  1,
  0.5,
  1e-320,
  2 ** 31,
  2 ** 32 + 1,
  2 ** 53 - 1,
  2 ** 53,
  1e308,
  -1e308,
  '',
  '0',
  'NaN',
  '__proto__',
  'constructor',
  'two\nlines \u001b[31m',
  'x'.repeat(5000),
  [],
  {},
  [null],
  [[[[[[[[]]]]]]]],
  { __proto__: null, constructor: 1 },
  ['a', 1, {}],
];

/** Names that a document may not have expected. */
const NAMES = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '', 'two\nlines', 'unknown'];

type Path = readonly (string | number)[];

function pathsOf(value: unknown, path: Path = []): Path[] {
  if (typeof value !== 'object' || value === null) return [path];
  const keys = Array.isArray(value) ? value.map((_, i) => i) : Object.keys(value);
  return [path, ...keys.flatMap((key) => pathsOf((value as Record<string | number, unknown>)[key], [...path, key]))];
}

type Change =
  | { readonly kind: 'set'; readonly value: unknown }
  | { readonly kind: 'scale'; readonly factor: number }
  | { readonly kind: 'add'; readonly name: string; readonly value: unknown }
  | { readonly kind: 'delete' };

const nasty = fc.oneof(fc.constantFrom(...NASTY), fc.jsonValue({ maxDepth: 2 }));
const change: fc.Arbitrary<Change> = fc.oneof(
  { weight: 4, arbitrary: nasty.map((value) => ({ kind: 'set', value }) as const) },
  { weight: 3, arbitrary: fc.constantFrom(-1, 0.5, 2, 3, 1e6).map((factor) => ({ kind: 'scale', factor }) as const) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('add' as const), name: fc.constantFrom(...NAMES), value: nasty }),
  },
  { weight: 2, arbitrary: fc.constant({ kind: 'delete' } as const) },
);

/** An own property under any name, as JSON.parse makes it. */
function define(object: object, name: string | number, value: unknown): void {
  Object.defineProperty(object, name, { value, enumerable: true, configurable: true, writable: true });
}

function applied(value: unknown, path: Path, what: Change): unknown {
  const [key, ...rest] = path;
  if (key === undefined) {
    if (what.kind === 'set') return what.value;
    if (what.kind === 'scale') return typeof value === 'number' ? value * what.factor : value;
    if (what.kind === 'add' && typeof value === 'object' && value !== null && !Array.isArray(value)) {
      const copy = { ...value };
      define(copy, what.name, what.value);
      return copy;
    }
    return value;
  }
  // An earlier change may have taken the place away.
  if (typeof value !== 'object' || value === null || !Object.hasOwn(value, key)) return value;
  if (Array.isArray(value)) {
    const copy = [...(value as unknown[])];
    if (rest.length === 0 && what.kind === 'delete') copy.splice(key as number, 1);
    else copy[key as number] = applied(copy[key as number], rest, what);
    return copy;
  }
  const copy = { ...value } as Record<string, unknown>;
  if (rest.length === 0 && what.kind === 'delete') delete copy[key];
  else define(copy, key, applied(copy[key], rest, what));
  return copy;
}

/** `document` with one to three changes. What comes out is what JSON can say. */
export function mutated(document: unknown): fc.Arbitrary<unknown> {
  const place = fc.tuple(fc.constantFrom(...pathsOf(document)), change);
  return fc
    .array(place, { minLength: 1, maxLength: 3 })
    .map((changes) => changes.reduce((value, [path, what]) => applied(value, path, what), document))
    .map((value) => JSON.parse(JSON.stringify(value)) as unknown);
}

/** Bytes with some of them changed, cut off, repeated or put in. */
export function mutatedBytes(bytes: Uint8Array): fc.Arbitrary<Uint8Array> {
  const at = fc.nat({ max: bytes.length });
  const piece = fc.record({ at, end: at, put: fc.uint8Array({ maxLength: 12 }), keep: fc.boolean() });
  return fc
    .array(piece, { minLength: 1, maxLength: 3 })
    .map((pieces) =>
      pieces.reduce<Uint8Array>(
        (value, { at, end, put, keep }) =>
          Buffer.concat([value.subarray(0, at), put, value.subarray(keep ? at + put.length : Math.max(at, end))]),
        bytes,
      ),
    );
}

/** Counts how often a law was met on either side, so that a test can tell that it tested both. */
export class Outcomes {
  refused = 0;
  taken = 0;

  /** Runs what must give a result or refuse with an error of ours, in one line. Gives undefined when it refused. */
  async of<T>(work: () => T | Promise<T>): Promise<Awaited<T> | undefined> {
    let result: Awaited<T>;
    try {
      result = await work();
    } catch (error) {
      if (!(error instanceof FlexplanError)) throw error;
      if (error.message === '' || /\p{Cc}/u.test(error.message))
        throw new Error(`expected a message of one line, got ${JSON.stringify(error.message)}`, { cause: error });
      this.refused++;
      return undefined;
    }
    this.taken++;
    return result;
  }
}
