/** Prompts -> completions: how they end, and how they are drawn. */
import { expect, test } from 'vitest';
import { generate } from '../../src/engine/generate.js';
import { openModelFolder } from '../../src/engine/model-folder.js';
import { loadTokenizer } from '../../src/engine/tokenizer.js';
import { describeNative, failureOf, KJV } from './native.js';

describeNative('generate', () => {
  const kjv = openModelFolder(KJV);
  const tokenizer = loadTokenizer(KJV);
  const complete = async (changes: object) =>
    generate({
      folder: await kjv,
      tokenizer: (await tokenizer)!,
      device: 'cpu',
      prompts: ['And the LORD said'],
      ...changes,
    });

  test('end tokens end, or not', async () => {
    const prompts = [[2, 971, 357]];
    const [free] = await complete({ prompts, maxTokens: 60, ignoreEos: true });
    expect(free!.tokenIds).toHaveLength(60);
    // Any token can be made the end.
    const end = free!.tokenIds[10]!;
    const folder = await kjv;
    const ending = { ...folder, model: { ...folder.model, eosTokenIds: [end] } };
    const [ended] = await complete({ folder: ending, prompts, maxTokens: 60 });
    expect(ended!.tokenIds).toEqual(free!.tokenIds.slice(0, free!.tokenIds.indexOf(end)));
    expect(ended!.finishReason).toBe('stop');
  });

  test('stop strings cut the text and stop the work', async () => {
    const [whole] = await complete({ maxTokens: 200 });
    const stop = whole!.text!.slice(12, 17);
    const [cut] = await complete({ maxTokens: 200, stopStrings: [stop] });
    expect(cut!.text).toBe(whole!.text!.slice(0, whole!.text!.indexOf(stop)));
    expect(cut!.finishReason).toBe('stop');
    expect(cut!.tokenIds.length).toBeLessThan(50);
  });

  test('sampling: repeats with a seed, differs without, is greedy at 0', async () => {
    const sampled = async (seed: number) => (await complete({ temperature: 1, seed, maxTokens: 12 }))[0]!.tokenIds;
    expect(await sampled(1)).toEqual(await sampled(1));
    expect(await sampled(1)).not.toEqual(await sampled(2));
    const narrow = await complete({ temperature: 1, topP: 1e-6, maxTokens: 12 });
    expect(narrow[0]!.tokenIds).toEqual((await complete({ maxTokens: 12 }))[0]!.tokenIds);
  });

  test('logits when asked, ids without a tokenizer', async () => {
    const [with2] = await complete({ logitsSteps: 2 });
    expect(with2!.logits!.map((row) => row.length)).toEqual([2048, 2048]);
    const [plain] = await generate({ folder: await kjv, device: 'cpu', prompts: [[2, 5]], maxTokens: 3 });
    expect(plain).not.toHaveProperty('text');
    expect(plain).not.toHaveProperty('logits');
    expect((await failureOf(generate({ folder: await kjv, device: 'cpu', prompts: ['x'] }))).message).toMatch(
      /tokenizer/,
    );
  });
});
