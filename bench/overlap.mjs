/**
 * How well the six tasks overlap: an emulated GPU whose links are set so fast that decoding, loading and storing take
 * the same time, and the step against the largest single stage of it. Nothing is at home on the GPU, so every task has
 * work. Writes the trace of the last run. Needs `npm run build` and the native engine. Exits with 1 when a step takes
 * more than the limit.
 *
 *   node bench/overlap.mjs [--trace FILE]
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Engine, openModelFolder, workloadFromSequences } from '../dist/index.js';
import { chromeTrace } from '../dist/report/chrome-trace.js';
import { writeRandomLlama } from './random-model.mjs';
import { greedySequences } from './sequences.mjs';

const LIMIT = 1.15;
/** As deep as models are: before the first layer of a step and after its last one there is nothing to overlap with. */
const SHAPE = { numLayers: 24, hiddenSize: 256, ffnSize: 704, numHeads: 4, numKvHeads: 4, vocabSize: 2048 };
const GPU_BATCH_SIZE = 16;
const NUM_GPU_BATCHES = 8;
const PROMPT_TOKENS = 8;
const GEN_TOKENS = 9;
const GPU_BYTES = 256 * 2 ** 20;
const UNPACED = 1e12;
/** Computing slows down a little as the links get busy, so the rates are set again from what was measured with them. */
const BALANCING_RUNS = 2;
const MEASURED_RUNS = 3;
const LINKS = ['cpuToGpu', 'gpuToCpu'];

const { values: options } = parseArgs({
  options: { trace: { type: 'string', default: 'overlap-trace.json' } },
});

const numSequences = GPU_BATCH_SIZE * NUM_GPU_BATCHES;
const temporary = mkdtempSync(join(tmpdir(), 'flexplan-overlap-'));
process.on('exit', () => rmSync(temporary, { recursive: true, force: true }));
const folder = await openModelFolder(writeRandomLlama(temporary, SHAPE));
const lengths = Array.from({ length: numSequences }, () => ({ promptTokens: PROMPT_TOKENS, genTokens: GEN_TOKENS }));
const inRam = { gpu: 0, cpu: 1, disk: 0 };
const policy = {
  gpuBatchSize: GPU_BATCH_SIZE,
  numGpuBatches: NUM_GPU_BATCHES,
  placement: { weights: inRam, kvCache: inRam, activations: inRam },
  weightBits: 16,
  kvCacheBits: 16,
  quantGroupSize: 64,
  cpuAttentionFraction: 0,
};

async function run(overlap, linkBytesPerSecond, trace = false) {
  const engine = await Engine.open({
    folder,
    policy: { ...policy, overlap },
    workload: workloadFromSequences(lengths),
    device: 'emulated',
    capacityBytes: { gpu: GPU_BYTES },
    linkBytesPerSecond,
    trace,
  });
  try {
    const { vocabSize } = folder.model;
    return await engine.run(
      greedySequences(numSequences, { promptTokens: PROMPT_TOKENS, genTokens: GEN_TOKENS, vocabSize }),
    );
  } finally {
    await engine.close();
  }
}

/** Rates at which each link takes as long as computing did. */
function balancedRates({ stageSeconds, trafficBytes }) {
  const { compute } = stageSeconds.decode;
  return Object.fromEntries(LINKS.map((link) => [link, trafficBytes.decode[link] / compute]));
}

/** Seconds of one decode step, and of each stage in it: computing as it was timed, links as their rate has it. */
function stepOf(result, rates) {
  const steps = GEN_TOKENS - 1;
  const linkSeconds = LINKS.map((link) => result.trafficBytes.decode[link] / rates[link] / steps);
  return {
    seconds: result.decodeSeconds / steps,
    stages: { compute: result.stageSeconds.decode.compute / steps, cpuToGpu: linkSeconds[0], gpuToCpu: linkSeconds[1] },
  };
}

const largest = ({ stages }) => Math.max(...Object.values(stages));
const ratio = (step) => step.seconds / largest(step);
const milliseconds = (seconds) => `${(1e3 * seconds).toFixed(2)} ms`;

let rates = Object.fromEntries(LINKS.map((link) => [link, UNPACED]));
for (let i = 0; i < BALANCING_RUNS; i++) rates = balancedRates(await run(true, rates));

const pairs = [];
for (let i = 0; i < MEASURED_RUNS; i++) {
  const together = await run(true, rates, true);
  pairs.push({ together, step: stepOf(together, rates), inOrder: stepOf(await run(false, rates), rates) });
}
pairs.sort((a, b) => ratio(a.step) - ratio(b.step));
const { together, step, inOrder } = pairs[Math.floor(pairs.length / 2)];
writeFileSync(options.trace, JSON.stringify(chromeTrace(together.trace, 'overlap, stages balanced')));

console.log(`| one decode step (median of ${MEASURED_RUNS}) | together | one after the other |\n|---|---|---|`);
for (const stage of Object.keys(step.stages))
  console.log(`| ${stage} | ${milliseconds(step.stages[stage])} | ${milliseconds(inOrder.stages[stage])} |`);
console.log(`| **step** | ${milliseconds(step.seconds)} | ${milliseconds(inOrder.seconds)} |`);
console.log(`| step / largest stage | ${ratio(step).toFixed(3)} | ${ratio(inOrder).toFixed(3)} |\n`);
console.log(`runs: ${pairs.map((pair) => ratio(pair.step).toFixed(3)).join(', ')} (limit ${LIMIT})`);
console.log(
  `overlap makes a step ${(inOrder.seconds / step.seconds).toFixed(2)} times as fast; trace: ${options.trace}`,
);
process.exitCode = ratio(step) <= LIMIT ? 0 : 1;
