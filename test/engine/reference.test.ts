/** The engine against transformers: logits, greedy tokens, completions, perplexity. */
import { readdirSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { generate } from '../../src/engine/generate.js';
import { openModelFolder } from '../../src/engine/model-folder.js';
import { loadTokenizer } from '../../src/engine/tokenizer.js';
import { describeNative, fixtureFolder, greedy, KJV, readJson, ROOT, runOnce, systemInfo } from './native.js';

interface Expected {
  prompts: { prompt: number[]; greedy_tokens: number[]; min_margin: number; logits: number[][] }[];
}

const FIXTURES = readdirSync(`${ROOT}test/fixtures`).filter((name) => name.includes('-tiny-'));
const GENERATED = 24;
const LOGITS_STEPS = 5;

/**
 * Allowed error of a logit, as a share of the largest expected one. fp32: only the order of sums differs. 16 bits: hidden
 * states and KV are rounded to storage, the reference's are not; bf16 has 8 bits.
 */
const TOLERANCES: readonly (readonly [RegExp, number])[] = [
  [/fp32$/, 1e-4],
  [/fp16$/, 5e-3],
  [/bf16$/, 1e-2],
];
const tolerance = (fixture: string) => TOLERANCES.find(([pattern]) => pattern.test(fixture))![1];

const largest = (values: ArrayLike<number>) => Math.max(...Array.from(values, Math.abs));

function relativeError(actual: ArrayLike<number>, expected: readonly number[]): number {
  return largest(expected.map((value, i) => actual[i]! - value)) / largest(expected);
}

function lead(logits: readonly number[]): number {
  const [first, second] = [...logits].sort((a, b) => b - a) as [number, number];
  return first - second;
}

const { isas } = await systemInfo();

describeNative.each(isas)('logits and greedy tokens of every fixture, %s kernels', (isa) => {
  beforeAll(() => vi.stubEnv('FLEXPLAN_ISA', isa));
  afterAll(() => vi.unstubAllEnvs());

  test('the kernels are those asked for', async () => {
    expect((await systemInfo()).isa).toBe(isa);
  });

  test.each(FIXTURES)('%s', async (fixture) => {
    const { prompts } = readJson<Expected>(`${ROOT}test/fixtures/${fixture}/expected.json`);
    const sequences = prompts.map(({ prompt }) => greedy(prompt, GENERATED, { logitsSteps: LOGITS_STEPS }));
    const { result } = await runOnce(await fixtureFolder(fixture), sequences);
    let decided = 0;
    prompts.forEach(({ greedy_tokens: tokens, min_margin: minMargin, logits: expected }, i) => {
      const { tokenIds, logits, finishReason } = result.sequences[i]!;
      expect([finishReason, tokenIds.length, logits.length]).toEqual(['length', GENERATED, LOGITS_STEPS]);
      for (let step = 0; step < GENERATED; step++) {
        const known = expected[step];
        if (known) expect(relativeError(logits[step]!, known)).toBeLessThan(tolerance(fixture));
        // A lead within twice the error of a logit is a near-tie: either token may win, and after it the texts differ.
        const nearTie = 2 * tolerance(fixture) * largest(known ?? expected.flat());
        const clear = (known ? lead(known) : minMargin) > nearTie;
        if (clear) expect(tokenIds[step]).toBe(tokens[step]);
        else if (tokenIds[step] !== tokens[step]) break;
        if (clear) decided++;
      }
    });
    const steps = prompts.length * (fixture.endsWith('fp32') ? GENERATED : LOGITS_STEPS);
    expect(decided).toBeGreaterThanOrEqual(fixture.endsWith('fp32') ? steps : steps / 2);
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

  // 4-bit weights: all matrices in min-max groups of 64, the tied embedding too, by the reference's own arithmetic.
  test.each([
    [16, 26.227, 0.05],
    [4, 26.485, 0.1],
  ] as const)(
    'has the perplexity of the reference with %i-bit weights',
    async (weightBits, expected, tolerance) => {
      const bytes = readFileSync(`${KJV}/eval-tokens.u16`);
      const ids = Array.from({ length: bytes.length / 2 }, (_, i) => bytes.readUInt16LE(2 * i));
      const windows: number[][] = [];
      for (let start = 0; start + 257 <= ids.length; start += 256) windows.push(ids.slice(start, start + 257));
      const policy = { ...everythingInMemory('cpu', windows.length), weightBits };
      const sequences = windows.map((window) => greedy(window, 0, { scorePrompt: true }));
      const { result } = await runOnce(await openModelFolder(KJV), sequences, { policy });
      const logProbs = result.sequences.flatMap(({ promptLogProbs }) => [...promptLogProbs!]);
      expect(logProbs).toHaveLength(256 * windows.length);
      const perplexity = Math.exp(-logProbs.reduce((sum, value) => sum + value, 0) / logProbs.length);
      expect(Math.abs(perplexity - expected)).toBeLessThan(tolerance);
    },
    240_000,
  );
});
