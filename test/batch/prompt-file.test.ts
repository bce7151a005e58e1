import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { preparePrompts, readPromptFile, sequenceOf, workloadOfRequests } from '../../src/batch/prompt-file.js';
import { loadModelConfig } from '../../src/engine/model-folder.js';
import { loadTokenizer } from '../../src/engine/tokenizer.js';

const folder = fileURLToPath(new URL('../../examples/opt-kjv-5m', import.meta.url));
const model = await loadModelConfig(folder);
const tokenizer = await loadTokenizer(folder);
const prepare = (...lines: unknown[]) =>
  preparePrompts(
    lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n'),
    'in.jsonl',
    model,
    tokenizer,
  );

test('the example file', async () => {
  const file = await readPromptFile(`${folder}/prompts.jsonl`, model, tokenizer);
  expect(file.requests).toHaveLength(64);
  expect(file.badRequests).toEqual([]);
  const expected = JSON.parse(readFileSync(`${folder}/expected.json`, 'utf8')) as {
    completions: { promptIds: number[] }[];
  };
  expected.completions.forEach(({ promptIds }, i) => expect(file.requests[i]!.promptIds).toEqual(promptIds));
  expect(workloadOfRequests(file, model).sequences![0]).toEqual({
    promptTokens: expected.completions[0]!.promptIds.length,
    genTokens: 16,
  });
});

test('bad lines keep their place aside, the rest goes on; blank lines only count', () => {
  const { requests, badRequests } = prepare('{"prompt": "a"}', '', 'nonsense', '{"prompt": "b"}\r', '   ');
  expect(requests.map(({ customId }) => customId)).toEqual(['1', '4']);
  expect(badRequests.map(({ customId }) => customId)).toEqual(['3']);
});

test('a byte order mark at the start is no part of the first line', () => {
  expect(prepare('\uFEFF{"prompt": "a"}').requests).toHaveLength(1);
});

describe('prompts that the model cannot take', () => {
  test.each<[string, object, RegExp]>([
    ['too long', { prompt: new Array<number>(500).fill(5), max_tokens: 14 }, /512 positions, got 500 \+ 14/],
    ['an id beyond the vocabulary', { prompt: [2, 2048] }, /from 0 to 2047, got 2048/],
    ['a negative id', { prompt: [-1] }, /got -1/],
    ['no tokens', { prompt: [] }, /at least one token/],
    ['a chat without template', { messages: [{ role: 'user', content: 'x' }] }, /chat template/],
  ])('%s', (_, line, message) => {
    const { requests, badRequests } = prepare({ prompt: 'fine' }, line);
    expect(requests).toHaveLength(1);
    expect(badRequests[0]!.error.message).toMatch(message);
  });

  test('the last token that fits', () => {
    expect(prepare({ prompt: new Array<number>(500).fill(5), max_tokens: 13 }).requests).toHaveLength(1);
  });

  test('texts without a tokenizer', () => {
    const lines = '{"prompt": "a"}\n{"prompt": [1]}';
    const { requests, badRequests } = preparePrompts(lines, 'in.jsonl', model, undefined);
    expect(requests).toHaveLength(1);
    expect(badRequests[0]!.error.message).toMatch(/tokenizer\.json/);
  });
});

describe('files that cannot be run at all', () => {
  test('a repeated id', () => {
    expect(() => prepare({ custom_id: 'a', prompt: 'x' }, 'bad', { custom_id: 'a', prompt: 'y' })).toThrow(
      /"a" on lines 1 and 3/,
    );
    expect(() => prepare({ custom_id: '2', prompt: 'x' }, { prompt: 'y' })).toThrow(/"2" on lines 1 and 2/);
  });

  test('nothing to serve, nothing there', async () => {
    expect(() => prepare('')).toThrow(/at least one request in in\.jsonl.*no lines/);
    expect(() => prepare('x', 'y')).toThrow(/line 1/);
    await expect(readPromptFile('/nowhere.jsonl', model, tokenizer)).rejects.toMatchObject({ code: 'bad-input' });
  });
});

test('a request becomes a sequence', () => {
  const [request] = prepare({ prompt: [2, 5], max_tokens: 3, temperature: 0.5, top_p: 0.9, seed: 8 }).requests;
  expect(sequenceOf(request!, model)).toEqual({
    promptIds: Int32Array.of(2, 5),
    maxTokens: 3,
    temperature: 0.5,
    topP: 0.9,
    seed: 8,
    stopIds: Int32Array.of(2),
    logitsSteps: 0,
    scorePrompt: false,
  });
});
