import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CompletionBuilder, CompletionCollector } from '../../src/engine/completion.js';
import { loadTokenizer } from '../../src/engine/tokenizer.js';

const tokenizer = (await loadTokenizer(fileURLToPath(new URL('../../examples/opt-kjv-5m', import.meta.url))))!;
const encode = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });

/** Feeds tokens until the builder says stop; gives how many it took. */
function feed(builder: CompletionBuilder, ids: readonly number[]): number {
  const stop = ids.findIndex((id) => builder.push(id));
  return stop < 0 ? ids.length : stop + 1;
}

describe('stop strings', () => {
  test('the text ends before the earliest, which may span tokens', () => {
    const text = 'And God said, Let there be light: and there was light.';
    const ids = encode(text);
    for (const stops of [['there be'], ['light', 'there be l'], ['be', 'there']]) {
      const builder = new CompletionBuilder(tokenizer, stops);
      const taken = feed(builder, ids);
      expect(taken).toBeLessThan(ids.length);
      const { text: cut, finishReason, tokenIds } = builder.finish('cancelled');
      expect(cut).toBe(text.slice(0, Math.min(...stops.map((stop) => text.indexOf(stop)))));
      expect(finishReason).toBe('stop');
      expect(tokenIds).toEqual(ids.slice(0, taken));
    }
  });

  test('tokens that arrive after it change nothing', () => {
    const builder = new CompletionBuilder(tokenizer, [',']);
    const ids = encode('And God said, Let there be light, and there was');
    feed(builder, ids);
    ids.forEach((id) => expect(builder.push(id)).toBe(true));
    expect(builder.finish('length').text).toBe('And God said');
  });

  test('any text is cut at a stop string that it holds, and otherwise left whole', () => {
    let found = 0;
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('a', 'b', ' ', '🙂', 'ab', 'é'), { maxLength: 30 }),
        fc.array(fc.array(fc.constantFrom('a', 'b', '🙂', ' '), { minLength: 1, maxLength: 3 }), {
          minLength: 1,
          maxLength: 3,
        }),
        (parts, stopParts) => {
          const text = parts.join('');
          const stops = stopParts.map((stop) => stop.join(''));
          const builder = new CompletionBuilder(tokenizer, stops);
          feed(builder, encode(text));
          const first = stops.map((stop) => text.indexOf(stop)).filter((index) => index >= 0);
          const result = builder.finish('length');
          if (first.length > 0) found++;
          expect(result.finishReason).toBe(first.length > 0 ? 'stop' : 'length');
          // The stream ends at the first token that completes any stop string; an earlier start may need a later token.
          expect(text.startsWith(result.text!)).toBe(true);
          for (const stop of stops) expect(result.text).not.toContain(stop);
          if (first.length === 0) expect(result.text).toBe(text);
        },
      ),
      { numRuns: 200 },
    );
    expect(found).toBeGreaterThan(30);
  });
});

test('without a tokenizer there are ids and no text', () => {
  const builder = new CompletionBuilder(undefined);
  builder.push(7);
  expect(builder.finish('length')).toEqual({ tokenIds: [7], finishReason: 'length' });
});

test('a character that never became whole comes at the end', () => {
  const builder = new CompletionBuilder(tokenizer);
  const ids = encode('🙂').slice(0, -1);
  ids.forEach((id) => builder.push(id));
  expect(builder.finish('length').text).toMatch(/\uFFFD/);
});

test('a run is dealt out to its sequences, and stopped ones are cancelled', () => {
  const cancelled: number[] = [];
  const builders = [new CompletionBuilder(tokenizer, ['light']), new CompletionBuilder(tokenizer)];
  const collector = new CompletionCollector(builders, (sequence) => cancelled.push(sequence));
  const ids = encode('Let there be light and more');
  const finished = ids.flatMap((id, step) =>
    collector.step({
      block: 0,
      step,
      sequences: Int32Array.of(0, 1),
      tokenIds: Int32Array.of(id, id),
      finished:
        step === ids.length - 1 ? [0, 1].map((sequence) => ({ sequence, finishReason: 'length' as const })) : [],
    }),
  );
  expect(new Set(cancelled)).toEqual(new Set([0]));
  expect(finished.map(({ completion }) => [completion.text, completion.finishReason])).toEqual([
    ['Let there be ', 'stop'],
    ['Let there be light and more', 'length'],
  ]);
});
