/**
 * Every model of test/fixtures on one device, under several policies, against the logits and greedy tokens of
 * transformers.
 *
 *   node native/test/gpu/fixtures.mjs <device>        Needs dist/ and the native engine. Exits with 1 at a difference.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Engine, everythingInMemory, openModelFolder, workloadFromSequences } from '../../../dist/index.js';

const [device = 'cuda'] = process.argv.slice(2);
const FIXTURES = fileURLToPath(new URL('../../../test/fixtures/', import.meta.url));
const GENERATED = 24;
const LOGITS_STEPS = 5;
/**
 * As in test/engine/reference.test.ts, but that a GPU multiplies 16-bit factors: their rounding adds to that of what is
 * stored. fp32 models are multiplied in fp32 everywhere.
 */
const TOLERANCES = { fp32: 1e-4, fp16: 1e-2, bf16: 4e-2 };

const largest = (values) => Math.max(...Array.from(values, Math.abs));
const relativeError = (actual, expected) => largest(expected.map((value, i) => actual[i] - value)) / largest(expected);
const thirds = { gpu: 0.34, cpu: 0.33, disk: 0.33 };
const onGpu = device !== 'cpu';
/** Changes to "everything in memory": all of it streamed, attended by the CPU, in 4 bits (which is then only run). */
const POLICIES = {
  'all in memory': {},
  ...(onGpu && {
    'spread over the tiers': { placement: { weights: thirds, kvCache: thirds, activations: thirds }, numGpuBatches: 2 },
    'attended by the CPU': {
      placement: {
        weights: { gpu: 0, cpu: 1, disk: 0 },
        kvCache: { gpu: 0, cpu: 1, disk: 0 },
        activations: { gpu: 0, cpu: 1, disk: 0 },
      },
      cpuAttentionFraction: 0.5,
    },
  }),
};

async function check(name, title, changes) {
  const folder = await openModelFolder(FIXTURES + name);
  const { prompts } = JSON.parse(readFileSync(`${FIXTURES}${name}/expected.json`, 'utf8'));
  const sequences = prompts.map(({ prompt }) => ({
    promptIds: Int32Array.from(prompt),
    maxTokens: GENERATED,
    temperature: 0,
    topP: 1,
    seed: 0,
    stopIds: new Int32Array(0),
    logitsSteps: LOGITS_STEPS,
    scorePrompt: false,
  }));
  const policy = { ...everythingInMemory(device, sequences.length), ...changes };
  const workload = workloadFromSequences(
    prompts.map(({ prompt }) => ({ promptTokens: prompt.length, genTokens: GENERATED })),
  );
  const emulated = device === 'emulated' && {
    capacityBytes: { gpu: 1e9 },
    linkBytesPerSecond: { cpuToGpu: 1e10, gpuToCpu: 1e10 },
  };
  const engine = await Engine.open({ folder, policy, workload, device, ...emulated });
  const { sequences: results } = await engine.run(sequences);
  await engine.close();
  const tolerance = TOLERANCES[name.split('-').at(-1)];
  let error = 0;
  let tokens = 0;
  let differ = 0;
  prompts.forEach(({ logits, greedy_tokens: greedy, min_margin: margin }, n) => {
    const { tokenIds, logits: got } = results[n];
    error = Math.max(error, relativeError(got[0], logits[0]));
    // A lead within twice the error may fall either way, and after it the texts differ.
    const isClear = margin > 2 * tolerance * largest(logits.flat());
    tokens += isClear ? greedy.length : 0;
    differ += isClear && tokenIds.some((token, i) => token !== greedy[i]) ? 1 : 0;
  });
  const ok = error < tolerance && differ === 0;
  console.log(
    `${ok ? 'ok  ' : 'FAIL'} ${name}, ${title}: first logits off by ${error.toExponential(1)}, ${tokens} clear tokens`,
  );
  return ok;
}

let failed = 0;
for (const name of readdirSync(FIXTURES).filter((folder) => folder.includes('-tiny-'))) {
  for (const [title, changes] of Object.entries(POLICIES)) {
    const ok = await check(name, title, changes).catch((error) => {
      console.log(`FAIL ${name}, ${title}: ${error.message}`);
      return false;
    });
    failed += ok ? 0 : 1;
  }
}
console.log(failed === 0 ? 'all fixtures as expected' : `${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
