import { describe, expect, test } from 'vitest';
import { type BadRequest, type BatchRequest, isBad, parseRequest } from '../../src/batch/request.js';

function parse(line: unknown, lineNumber = 1): BatchRequest | BadRequest {
  return parseRequest(typeof line === 'string' ? line : JSON.stringify(line), lineNumber);
}

function good(line: unknown): BatchRequest {
  const request = parse(line);
  if (isBad(request)) throw new Error(request.error.message);
  return request;
}

function bad(line: unknown): BadRequest {
  const request = parse(line, 7);
  if (!isBad(request)) throw new Error(`expected ${JSON.stringify(line)} to be refused`);
  return request;
}

const openAi = (body: object, rest: object = {}) => ({
  custom_id: 'a',
  method: 'POST',
  url: '/v1/completions',
  body,
  ...rest,
});

describe('what is served', () => {
  test('the whole form', () => {
    const body = { model: 'm', prompt: 'Hi', max_tokens: 5, temperature: 0.7, top_p: 0.9, seed: 3, stop: ['\n', '.'] };
    expect(parse(openAi(body))).toEqual({
      customId: 'a',
      url: '/v1/completions',
      input: { kind: 'text', text: 'Hi' },
      maxTokens: 5,
      temperature: 0.7,
      topP: 0.9,
      seed: 3,
      stopStrings: ['\n', '.'],
    });
  });

  test('a plain line: greedy, 16 tokens, its number as id', () => {
    expect(parse({ prompt: 'Hi' }, 12)).toMatchObject({
      customId: '12',
      url: '/v1/completions',
      input: { kind: 'text', text: 'Hi' },
      maxTokens: 16,
      temperature: 0,
      topP: 1,
      stopStrings: [],
    });
    expect(good({ prompt: 'Hi', max_tokens: 3, custom_id: 'x' })).toMatchObject({ customId: 'x', maxTokens: 3 });
  });

  test.each<[unknown, object]>([
    ['text', { kind: 'text', text: 'text' }],
    ['', { kind: 'text', text: '' }],
    [['text'], { kind: 'text', text: 'text' }],
    [[1, 2], { kind: 'ids', ids: [1, 2] }],
    [[[1, 2]], { kind: 'ids', ids: [1, 2] }],
    [[5], { kind: 'ids', ids: [5] }],
  ])('prompt %j', (prompt, input) => {
    expect(good(openAi({ prompt })).input).toEqual(input);
  });

  test('chats, with text in parts', () => {
    const messages = [
      { role: 'user', content: 'Hi' },
      {
        role: 'user',
        content: [
          { type: 'text', text: 'a' },
          { type: 'text', text: 'b' },
        ],
      },
    ];
    const expected = { kind: 'chat', messages: [messages[0], { role: 'user', content: 'ab' }] };
    expect(good(openAi({ messages }, { url: '/v1/chat/completions' })).input).toEqual(expected);
    expect(good({ messages }).url).toBe('/v1/chat/completions');
  });

  test('fields that ask for nothing are accepted', () => {
    good(openAi({ prompt: 'x', n: 1, stream: false, user: 'u', logprobs: null, echo: false, presence_penalty: 0 }));
    expect(good(openAi({ prompt: 'x', max_completion_tokens: 9 })).maxTokens).toBe(9);
    expect(good(openAi({ prompt: 'x', stop: 'end' })).stopStrings).toEqual(['end']);
    expect(good(openAi({ prompt: 'x', stop: null })).stopStrings).toEqual([]);
  });

  test('seeds that are not given differ by id and repeat', () => {
    const seed = (custom_id: string) => good(openAi({ prompt: 'x' }, { custom_id })).seed;
    expect(seed('a')).toBe(seed('a'));
    expect(new Set(['a', 'b', 'aa', 'ab'].map(seed)).size).toBe(4);
  });
});

describe('what is refused keeps its id and says why in one line', () => {
  test.each<[string, unknown, RegExp]>([
    ['7', 'not json', /line 7: expected JSON/],
    ['7', '[]', /a JSON object/],
    ['7', 'null', /a JSON object/],
    ['7', openAi({ prompt: 'x' }, { custom_id: 5 }), /custom_id to be a text, got 5/],
    ['a', openAi({ prompt: 'x' }, { method: 'GET' }), /method "POST", got "GET"/],
    ['a', openAi({ prompt: 'x' }, { url: '/v1/embeddings' }), /url .*got "\/v1\/embeddings"/],
    ['a', { custom_id: 'a', body: 'x' }, /body to be a JSON object/],
    ['a', openAi({}), /prompt to be one text .*got nothing/],
    ['a', openAi({ prompt: 5 }), /prompt/],
    ['a', openAi({ prompt: ['a', 'b'] }), /one text/],
    ['a', openAi({ prompt: [1.5] }), /token ids/],
    ['a', openAi({ prompt: 'x' }, { url: '/v1/chat/completions' }), /messages/],
    ['a', openAi({ messages: [] }, { url: '/v1/chat/completions' }), /messages/],
    ['a', openAi({ messages: [{ content: 'x' }] }, { url: '/v1/chat/completions' }), /role/],
    [
      'a',
      openAi({ messages: [{ role: 'user', content: [{ type: 'image_url' }] }] }, { url: '/v1/chat/completions' }),
      /to be text/,
    ],
    ['a', openAi({ prompt: 'x', max_tokens: 0 }), /max_tokens to be a whole number of at least 1, got 0/],
    ['a', openAi({ prompt: 'x', max_tokens: '5' }), /max_tokens.*"5"/],
    ['a', openAi({ prompt: 'x', temperature: -1 }), /temperature/],
    ['a', openAi({ prompt: 'x', temperature: 2.5 }), /temperature/],
    ['a', openAi({ prompt: 'x', top_p: 0 }), /top_p/],
    ['a', openAi({ prompt: 'x', seed: 1.5 }), /seed/],
    ['a', openAi({ prompt: 'x', stop: '' }), /stop/],
    ['a', openAi({ prompt: 'x', stop: [1] }), /stop/],
    ['a', openAi({ prompt: 'x', n: 2 }), /n to be 1, got n: 2/],
    ['a', openAi({ prompt: 'x', logprobs: 5 }), /logprobs/],
    ['a', openAi({ prompt: 'x', max_token: 5 }), /got max_token: 5/],
    ['a', openAi({ prompt: 'x', tools: [] }), /tools/],
  ])('id %s: %j', (customId, line, message) => {
    const request = bad(line);
    expect(request.customId).toBe(customId);
    expect(request.error.message).toMatch(message);
    expect(request.error.message).not.toContain('\n');
    expect(request.error.code).toMatch(/^(bad-input|unsupported)$/);
  });
});
