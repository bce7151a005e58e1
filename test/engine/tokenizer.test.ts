import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { StreamDecoder } from '../../src/engine/stream-decoder.js';
import { loadTokenizer, Tokenizer } from '../../src/engine/tokenizer.js';
import { temporaryFolder } from './temporary-folder.js';

const path = (relative: string) => fileURLToPath(new URL(`../../${relative}`, import.meta.url));
const readJson = <T>(relative: string) => JSON.parse(readFileSync(path(relative), 'utf8')) as T;

interface Case {
  text: string;
  ids: number[];
  decoded: string;
}
interface FullCase extends Case {
  ids_no_special: number[];
  decoded_with_special: string;
}

const KJV = 'examples/opt-kjv-5m';
const STYLES = ['test/fixtures/tokenizer-opt-style', 'test/fixtures/tokenizer-llama3-style'];
const tokenizers = new Map<string, Tokenizer>();
for (const folder of [...STYLES, KJV]) tokenizers.set(folder, (await loadTokenizer(path(folder)))!);

function streamed(tokenizer: Tokenizer, ids: readonly number[]): string[] {
  const decoder = new StreamDecoder(tokenizer);
  return [...ids.map((id) => decoder.push(id)), decoder.flush()];
}

describe.each(STYLES)('%s equals the reference', (folder) => {
  const tokenizer = tokenizers.get(folder)!;

  test.each(readJson<{ cases: FullCase[] }>(`${folder}/cases.json`).cases)('$text', (expected) => {
    expect(tokenizer.encode(expected.text)).toEqual(expected.ids);
    expect(tokenizer.encode(expected.text, { addSpecialTokens: false })).toEqual(expected.ids_no_special);
    expect(tokenizer.decode(expected.ids)).toBe(expected.decoded);
    expect(tokenizer.decode(expected.ids, { skipSpecialTokens: false })).toBe(expected.decoded_with_special);
  });

  test.each(readJson<{ cases: Case[] }>(`${folder}/white-space-cases.json`).cases)('white space $text', (expected) => {
    expect(tokenizer.encode(expected.text)).toEqual(expected.ids);
    expect(tokenizer.decode(expected.ids)).toBe(expected.decoded);
  });
});

test.each(readJson<Case[]>(`${KJV}/tokenizer-expected.json`))('the example model: $text', ({ text, ids }) => {
  expect(tokenizers.get(KJV)!.encode(text)).toEqual(ids);
});

describe('laws', () => {
  const tokenizer = fc.constantFrom(...tokenizers.values());

  test('what is encoded comes back', () => {
    fc.assert(
      fc.property(tokenizer, fc.string({ unit: 'grapheme' }), (t, text) => {
        expect(t.decode(t.encode(text))).toBe(text);
      }),
    );
  });

  test('the stream is the whole, and breaks no character', () => {
    let heldBack = 0;
    fc.assert(
      fc.property(tokenizer, fc.string({ unit: 'binary' }), (t, text) => {
        const ids = t.encode(text);
        const pieces = streamed(t, ids);
        expect(pieces.join('')).toBe(t.decode(ids));
        // Half of a surrogate pair would make this throw.
        pieces.forEach((piece) => encodeURIComponent(piece));
        if (!text.includes('\uFFFD')) expect(pieces.join('')).not.toContain('\uFFFD');
        heldBack += pieces.slice(0, -1).filter((piece, i) => piece === '' && i > 0).length;
      }),
    );
    expect(heldBack).toBeGreaterThan(100);
  });

  test('ids that are no text at all stream as they decode', () => {
    fc.assert(
      fc.property(tokenizer, fc.array(fc.integer({ min: 0, max: 511 })), (t, ids) => {
        expect(streamed(t, ids).join('')).toBe(t.decode(ids));
      }),
    );
  });
});

test('ids beyond the vocabulary decode to nothing', () => {
  const tokenizer = tokenizers.get(KJV)!;
  expect(tokenizer.decode([...tokenizer.encode('And God said'), 999_999])).toBe('And God said');
  expect(tokenizer.decode([])).toBe('');
});

describe('chats', () => {
  const TEMPLATE =
    '{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}';
  const json = readJson<object>(`${KJV}/tokenizer.json`);
  const messages = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'Who was Moses?' },
  ];
  const rendered = '</s>[system] Be brief.\n[user] Who was Moses?\n[assistant]';

  test('the template puts the special tokens, once', () => {
    const tokenizer = new Tokenizer(json, { bos_token: { content: '</s>' } }, TEMPLATE);
    const ids = tokenizer.encodeChat(messages);
    expect(tokenizer.decode(ids, { skipSpecialTokens: false })).toBe(rendered);
    expect(ids.filter((id) => id === 2)).toHaveLength(1);
  });

  test.each<[string, object, Record<string, string>]>([
    ['in tokenizer_config.json', { bos_token: '</s>', chat_template: TEMPLATE }, {}],
    [
      'one of several',
      {
        bos_token: '</s>',
        chat_template: [
          { name: 'tool_use', template: 'x' },
          { name: 'default', template: TEMPLATE },
        ],
      },
      {},
    ],
    ['in a file of its own', { bos_token: '</s>', chat_template: 'old' }, { 'chat_template.jinja': TEMPLATE }],
  ])('a template %s', async (_, config, files) => {
    const folder = join(root, 'model');
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder);
    cpSync(path(`${KJV}/tokenizer.json`), join(folder, 'tokenizer.json'));
    writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(config));
    for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
    const tokenizer = (await loadTokenizer(folder))!;
    expect(tokenizer.decode(tokenizer.encodeChat(messages), { skipSpecialTokens: false })).toBe(rendered);
  });

  test('no template, and a template that refuses', () => {
    expect(() => tokenizers.get(KJV)!.encodeChat(messages)).toThrow(/chat template/);
    const strict = new Tokenizer(json, {}, "{{ raise_exception('roles must alternate') }}");
    expect(() => strict.encodeChat(messages)).toThrow(/roles must alternate/);
  });
});

const root = temporaryFolder();

test('a folder without tokenizer has none; a broken one says so', async () => {
  expect(await loadTokenizer(path('test/fixtures/llama-tiny-fp32'))).toBeUndefined();
  writeFileSync(join(root, 'tokenizer.json'), '{"model": {"type": "Nothing"}}');
  await expect(loadTokenizer(root)).rejects.toMatchObject({ code: 'unsupported' });
});
