/**
 * Prompt files, policies, profiles and plans with something wrong in them are refused in one line, or mean what they
 * say.
 */
import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { isBad, parseRequest } from '../../src/batch/request.js';
import { preparePrompts, sequenceOf } from '../../src/batch/prompt-file.js';
import { loadModelConfig } from '../../src/engine/model-folder.js';
import { checkSequences } from '../../src/engine/sequences.js';
import { loadTokenizer } from '../../src/engine/tokenizer.js';
import { checkHardwareProfile } from '../../src/hardware/check-profile.js';
import { checkPolicy } from '../../src/policy/check-policy.js';
import type { Policy } from '../../src/policy/policy.js';
import { realise } from '../../src/policy/realisation.js';
import { checkPlan } from '../../src/solver/check-plan.js';
import { createGlpkSolver } from '../../src/solver/glpk.js';
import { optimize } from '../../src/solver/optimize.js';
import { workloadFromNumbers } from '../../src/workload/blocks.js';
import { KJV, ROOT } from '../engine/native.js';
import { optLike, smallJob, smallMachine } from '../solver/machines.js';
import { mutated, mutatedBytes, Outcomes } from './mutate.js';

const model = await loadModelConfig(KJV);
const tokenizer = await loadTokenizer(KJV);
const solver = createGlpkSolver();

const COMPLETION = {
  custom_id: 'a',
  method: 'POST',
  url: '/v1/completions',
  body: { prompt: 'In the beginning', max_tokens: 4, temperature: 0, top_p: 1, seed: 3, stop: ['.'], n: 1, user: 'me' },
};
const CHAT = {
  custom_id: 'b',
  url: '/v1/chat/completions',
  body: { messages: [{ role: 'user', content: [{ type: 'text', text: 'Hello' }] }], max_completion_tokens: 5 },
};
const IDS = { prompt: [2, 5, 7], max_tokens: 3 };

const lines = fc.oneof(
  ...[COMPLETION, CHAT, IDS].map((line) => mutated(line).map((json) => JSON.stringify(json))),
  ...[COMPLETION, IDS].map((line) =>
    mutatedBytes(Buffer.from(JSON.stringify(line))).map((bytes) => Buffer.from(bytes).toString()),
  ),
);

test('every line of a prompt file is a request that runs or one that says why not', async () => {
  const outcomes = new Outcomes();
  let served = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(lines, { minLength: 1, maxLength: 4 }), async (some) => {
      const text = [...some, JSON.stringify({ ...IDS, custom_id: 'good' })].join('\n');
      const file = await outcomes.of(() => preparePrompts(text, 'in.jsonl', model, tokenizer));
      if (!file) return;
      const asked = text.split(/\r?\n/).filter((line) => line.trim() !== '').length;
      expect(file.requests.length + file.badRequests.length).toBe(asked);
      checkSequences(
        model,
        file.requests.map((request) => sequenceOf(request, model)),
      );
      for (const { error } of file.badRequests) expect(error.message).not.toMatch(/\p{Cc}/u);
      served += file.requests.length;
    }),
    { numRuns: 500 },
  );
  expect(outcomes.taken).toBeGreaterThan(300);
  expect(served).toBeGreaterThan(outcomes.taken);
});

test.each(['constructor', '__proto__', 'toString'])('a request with a field named %s', (name) => {
  const request = parseRequest(`{"prompt":"a",${JSON.stringify(name)}:1}`, 1);
  expect(isBad(request) && request.error.code).toBe('unsupported');
});

const POLICY: Policy = {
  gpuBatchSize: 4,
  numGpuBatches: 2,
  placement: {
    weights: { gpu: 0.2, cpu: 0.5, disk: 0.3 },
    kvCache: { gpu: 0.5, cpu: 0.5, disk: 0 },
    activations: { gpu: 1, cpu: 0, disk: 0 },
  },
  weightBits: 16,
  kvCacheBits: 16,
  quantGroupSize: 64,
  cpuAttentionFraction: 0.5,
  overlap: true,
};

test('a policy is realised to the byte or refused', async () => {
  const outcomes = new Outcomes();
  const workload = workloadFromNumbers(8, 4, 16);
  await fc.assert(
    fc.asyncProperty(mutated(POLICY), async (document) => {
      const realisation = await outcomes.of(() => {
        const policy = checkPolicy(document);
        // A batch of a million million is a policy, too: it is the estimate that says it does not fit.
        if (policy.gpuBatchSize * policy.numGpuBatches > 1e5) return undefined;
        return realise(model, policy, workload, 'emulated');
      });
      const tiers = Object.values(realisation?.bytes ?? {}).flatMap(Object.values) as number[];
      expect(tiers.every((bytes) => Number.isSafeInteger(bytes) && bytes >= 0)).toBe(true);
    }),
    { numRuns: 500 },
  );
  expect(outcomes.refused).toBeGreaterThan(100);
  expect(outcomes.taken).toBeGreaterThan(20);
});

test('a machine is planned for or refused', async () => {
  const outcomes = new Outcomes();
  await fc.assert(
    fc.asyncProperty(mutated(JSON.parse(JSON.stringify(smallMachine))), async (document) => {
      const result = await outcomes.of(() =>
        optimize(optLike, checkHardwareProfile(document), smallJob, { gpuBatchSize: 8, numGpuBatches: 2 }, { solver }),
      );
      if (result?.status !== 'optimal') return;
      const { genTokensPerSecond, totalSeconds, fits } = result.plan.estimate;
      expect(genTokensPerSecond).toBeGreaterThan(0);
      expect(Number.isFinite(totalSeconds)).toBe(true);
      expect(fits).toEqual({ gpu: true, cpu: true, disk: true });
    }),
    { numRuns: 150 },
  );
  expect(outcomes.refused).toBeGreaterThan(20);
  expect(outcomes.taken).toBeGreaterThan(10);
});

test('the profiles that come with it', async () => {
  const outcomes = new Outcomes();
  const profiles = readdirSync(`${ROOT}hardware-profiles`)
    .filter((name) => name.endsWith('.json'))
    .map((name) => JSON.parse(readFileSync(`${ROOT}hardware-profiles/${name}`, 'utf8')) as unknown);
  const any = fc.constantFrom(...profiles).chain(mutated);
  await fc.assert(
    fc.asyncProperty(any, async (document) => void (await outcomes.of(() => checkHardwareProfile(document)))),
    { numRuns: 500 },
  );
  expect(outcomes.refused).toBeGreaterThan(100);
});

test('a plan', async () => {
  const result = await optimize(optLike, smallMachine, smallJob, {}, { solver });
  if (result.status !== 'optimal') throw new Error('expected a plan');
  const outcomes = new Outcomes();
  await fc.assert(
    fc.asyncProperty(
      mutated(JSON.parse(JSON.stringify(result.plan))),
      async (document) => void (await outcomes.of(() => checkPlan(document))),
    ),
    { numRuns: 500 },
  );
  expect(outcomes.refused).toBeGreaterThan(100);
});
