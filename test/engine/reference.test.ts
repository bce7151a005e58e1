/** The engine against transformers: logits, greedy tokens, completions, perplexity. */
import { readdirSync } from 'node:fs';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { generate } from '../../src/engine/generate.js';
import { openModelFolder } from '../../src/engine/model-folder.js';
import { perplexity } from '../../src/engine/perplexity.js';
import { loadTokenizer } from '../../src/engine/tokenizer.js';
import { describeNative, fixtureFolder, greedy, KJV, readJson, ROOT, runOnce, systemInfo, tokenIds } from './native.js';

interface Expected {
  prompts: { prompt: number[]; greedy_tokens: number[]; min_margin: number; logits: number[][] }[];
}

const FIXTURES = readdirSync(`${ROOT}test/fixtures`).filter((name) => name.includes('-tiny-'));
const GENERATED = 24;
const LOGITS_STEPS = 5;

/**
 * Allowed error of a logit, as a share of the largest expected one. fp32: only the order of sums differs. 16 bits:
 * hidden states and KV are rounded to storage, the reference's are not; bf16 has 8 bits. Kernels that multiply bf16
 * round every input of a matmul as well.
 */
const TOLERANCES: readonly (readonly [RegExp, number])[] = [
  [/fp32 /, 1e-4],
  [/fp16 /, 5e-3],
  [/bf16 .*bf16$/, 2e-2],
  [/bf16 /, 1e-2],
];
const toleranceOf = (fixture: string, isa: string) =>
  TOLERANCES.find(([pattern]) => pattern.test(`${fixture} ${isa}`))![1];

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
    const tolerance = toleranceOf(fixture, isa);
    let decided = 0;
    prompts.forEach(({ greedy_tokens: tokens, min_margin: minMargin, logits: expected }, i) => {
      const { tokenIds, logits, finishReason } = result.sequences[i]!;
      expect([finishReason, tokenIds.length, logits.length]).toEqual(['length', GENERATED, LOGITS_STEPS]);
      for (let step = 0; step < GENERATED; step++) {
        const known = expected[step];
        if (known) expect(relativeError(logits[step]!, known)).toBeLessThan(tolerance);
        // A lead within twice the error of a logit is a near-tie: either token may win, and after it the texts differ.
        const nearTie = 2 * tolerance * largest(known ?? expected.flat());
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
});

describeNative('the perplexity of the example model', () => {
  const ids = tokenIds(`${KJV}/eval-tokens.u16`);
  const measured = new Map<string, Promise<number>>();

  /** Of the evaluation text, 256 tokens predicted in each window. Measured once. */
  function perplexityWith(weightBits: 16 | 4, kvCacheBits: 16 | 4): Promise<number> {
    const key = `${weightBits} ${kvCacheBits}`;
    const measure = async () => {
      const policy = { ...everythingInMemory('cpu', 32), weightBits, kvCacheBits };
      return perplexity({ folder: await openModelFolder(KJV), policy, device: 'cpu', numThreads: 2 }, ids, 256);
    };
    const known = measured.get(key) ?? measure();
    measured.set(key, known);
    return known;
  }

  test('is that of the reference', async () => {
    expect(Math.abs((await perplexityWith(16, 16)) - 26.227)).toBeLessThan(0.05);
  });

  test('with 4-bit weights is below 26.485, which is what the reference has with plain min-max groups', async () => {
    const loss = (await perplexityWith(4, 16)) / (await perplexityWith(16, 16)) - 1;
    expect(await perplexityWith(4, 16)).toBeLessThan(26.485);
    expect(loss).toBeGreaterThan(0.001); // Were the weights not 4-bit, nothing would be lost.
  });

  test('with 4-bit weights and KV cache is within 1.5 % of 16-bit', async () => {
    const loss = (await perplexityWith(4, 4)) / (await perplexityWith(16, 16)) - 1;
    expect(loss).toBeLessThan(0.015);
    expect(await perplexityWith(4, 4)).toBeGreaterThan(await perplexityWith(4, 16));
  });

  test('needs more tokens than one window predicts', async () => {
    const options = {
      folder: await openModelFolder(KJV),
      policy: everythingInMemory('cpu', 1),
      device: 'cpu',
    } as const;
    await expect(perplexity(options, ids.slice(0, 256), 256)).rejects.toMatchObject({ code: 'bad-input' });
    expect(await perplexity(options, ids.slice(0, 257), 256)).toBeGreaterThan(1);
  });
});
