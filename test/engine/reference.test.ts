/** The engine against transformers: logits, greedy tokens, completions, perplexity. */
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { generate } from '../../src/engine/generate.js';
import { openModelFolder } from '../../src/engine/model-folder.js';
import { loadTokenizer } from '../../src/engine/tokenizer.js';
import { describeNative, fixtureFolder, greedy, KJV, readJson, ROOT, runOnce } from './native.js';

interface Expected {
  prompts: { prompt: number[]; greedy_tokens: number[]; min_margin: number; logits: number[][] }[];
}

const FIXTURES = readdirSync(`${ROOT}test/fixtures`).filter((name) => name.includes('-tiny-'));
const GENERATED = 24;
const LOGITS_STEPS = 5;

/** Of the largest expected logit. fp32: the order of sums; 16 bits: hidden states and KV are rounded to storage, the reference's are not. */
const tolerance = (fixture: string) => (fixture.endsWith('fp32') ? 1e-4 : 2e-2);

const largest = (values: ArrayLike<number>) => Math.max(...Array.from(values, Math.abs));

function relativeError(actual: ArrayLike<number>, expected: readonly number[]): number {
  return largest(expected.map((value, i) => actual[i]! - value)) / largest(expected);
}

describeNative('logits and greedy tokens of every fixture', () => {
  test.each(FIXTURES)('%s', async (fixture) => {
    const { prompts } = readJson<Expected>(`${ROOT}test/fixtures/${fixture}/expected.json`);
    const sequences = prompts.map(({ prompt }) => greedy(prompt, GENERATED, { logitsSteps: LOGITS_STEPS }));
    const { result } = await runOnce(await fixtureFolder(fixture), sequences);
    let decided = 0;
    prompts.forEach(({ greedy_tokens: tokens, min_margin: minMargin, logits }, i) => {
      const actual = result.sequences[i]!;
      expect(actual.finishReason).toBe('length');
      expect(actual.logits).toHaveLength(LOGITS_STEPS);
      expect(actual.tokenIds).toHaveLength(GENERATED);
      // A token whose lead is within twice the error of a logit is a near-tie: either side may win, and after it the texts differ.
      const nearTie = 2 * tolerance(fixture) * largest(logits.flat());
      const clear = minMargin > nearTie;
      if (clear) decided++;
      const agreed = [...actual.tokenIds].findIndex((id, step) => id !== tokens[step]);
      const comparable = clear || agreed < 0 ? LOGITS_STEPS : Math.min(LOGITS_STEPS, agreed + 1);
      for (let step = 0; step < comparable; step++) {
        expect(relativeError(actual.logits[step]!, logits[step]!)).toBeLessThan(tolerance(fixture));
      }
      if (clear) expect([...actual.tokenIds]).toEqual(tokens);
      else if (agreed >= 0 && agreed < LOGITS_STEPS) {
        const [first, second] = [...logits[agreed]!].sort((a, b) => b - a) as [number, number];
        expect(first - second).toBeLessThanOrEqual(nearTie);
      }
    });
    // fp32 leaves hardly any doubt; in 16 bits the rounding may reach most margins.
    if (fixture.endsWith('fp32')) expect(decided).toBeGreaterThanOrEqual(prompts.length - 1);
  });
});

describeNative('the example model', () => {
  test('completes as the reference does', async () => {
    const { completions: expected } = readJson<{
      completions: { prompt: string; promptIds: number[]; greedyIds: number[]; text: string; minMargin: number }[];
    }>(`${KJV}/expected.json`);
    const completions = await generate({
      folder: await openModelFolder(KJV),
      tokenizer: (await loadTokenizer(KJV))!,
      device: 'cpu',
      prompts: expected.map(({ prompt }) => prompt),
      maxTokens: 40,
    });
    let decided = 0;
    expected.forEach(({ promptIds, greedyIds, text, minMargin }, i) => {
      const completion = completions[i]!;
      expect(completion.promptIds).toEqual(promptIds);
      // Storage is fp16: a lead of 0.05 is more than its rounding moves a logit of this model.
      if (minMargin < 0.05) return;
      decided++;
      const ended = greedyIds.indexOf(2);
      expect(completion.tokenIds).toEqual(ended < 0 ? greedyIds : greedyIds.slice(0, ended));
      expect(completion.text).toBe(text);
      expect(completion.finishReason).toBe(ended < 0 ? 'length' : 'stop');
    });
    expect(decided).toBeGreaterThanOrEqual(4);
  });

  test('has the perplexity of the reference', async () => {
    const bytes = readFileSync(`${KJV}/eval-tokens.u16`);
    const ids = Array.from({ length: bytes.length / 2 }, (_, i) => bytes.readUInt16LE(2 * i));
    const windows: number[][] = [];
    for (let start = 0; start + 257 <= ids.length; start += 256) windows.push(ids.slice(start, start + 257));
    const { result } = await runOnce(
      await openModelFolder(KJV),
      windows.map((window) => greedy(window, 0, { scorePrompt: true })),
    );
    const logProbs = result.sequences.flatMap(({ promptLogProbs }) => [...promptLogProbs!]);
    expect(logProbs).toHaveLength(256 * windows.length);
    const perplexity = Math.exp(-logProbs.reduce((sum, value) => sum + value, 0) / logProbs.length);
    expect(Math.abs(perplexity - 26.227)).toBeLessThan(0.05);
  });
});
