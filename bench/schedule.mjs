/**
 * How often weights are loaded for each token generated when some sequences end long before others: block after block
 * (zig-zag), with waiting sequences taking the slots that fall free (diagonal), and the least that any schedule needs
 * in the memory that the diagonal's sequences reserve. Nothing of the model is at home on the emulated GPU, and nothing
 * but weights is moved. Needs `npm run build` and the native engine. Exits with 1 when the diagonal saves less than the
 * goal or the outputs differ.
 *
 *   node bench/schedule.mjs [--seed N]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { leastWeightLoads } from '../dist/cost-model/io-bounds.js';
import { greedySequence } from '../dist/engine/sequences.js';
import { Engine, openModelFolder, workloadFromSequences } from '../dist/index.js';
import { hiddenBytes, kvRowBytes } from '../dist/models/tensors.js';
import { writeRandomLlama } from './random-model.mjs';

const GOAL = 1.5;
const SHAPE = { numLayers: 4, hiddenSize: 64, ffnSize: 176, numHeads: 2, numKvHeads: 2, vocabSize: 512 };
const GPU_BATCH_SIZE = 16;
const NUM_GPU_BATCHES = 2;
const NUM_SEQUENCES = 512;
const LEAST_GEN_TOKENS = 8;
const MOST_GEN_TOKENS = 128;
const MOST_PROMPT_TOKENS = 24;
const LINK_BYTES_PER_SECOND = 1e12;
const GPU_BYTES = 256 * 2 ** 20;

const { values: options } = parseArgs({ options: { seed: { type: 'string', default: '1' } } });

/** Whole numbers from `least` to `most`. */
function randomNumbers(seed) {
  let state = seed;
  return (least, most) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return least + Math.floor((state / 2 ** 32) * (most - least + 1));
  };
}

function randomSequence(random) {
  const promptIds = Array.from({ length: random(1, MOST_PROMPT_TOKENS) }, () => random(4, SHAPE.vocabSize - 1));
  return greedySequence(promptIds, random(LEAST_GEN_TOKENS, MOST_GEN_TOKENS));
}

const temporary = mkdtempSync(join(tmpdir(), 'flexplan-schedule-'));
process.on('exit', () => rmSync(temporary, { recursive: true, force: true }));
const folder = await openModelFolder(writeRandomLlama(temporary, SHAPE));
const random = randomNumbers(Number(options.seed));
const sequences = Array.from({ length: NUM_SEQUENCES }, () => randomSequence(random));
const lengths = sequences.map(({ promptIds, maxTokens }) => ({ promptTokens: promptIds.length, genTokens: maxTokens }));
const genTokens = lengths.reduce((sum, length) => sum + length.genTokens, 0);

async function run(schedule) {
  const engine = await Engine.open({
    folder,
    policy: {
      gpuBatchSize: GPU_BATCH_SIZE,
      numGpuBatches: NUM_GPU_BATCHES,
      placement: {
        weights: { gpu: 0, cpu: 1, disk: 0 },
        kvCache: { gpu: 1, cpu: 0, disk: 0 },
        activations: { gpu: 1, cpu: 0, disk: 0 },
      },
      weightBits: 16,
      kvCacheBits: 16,
      quantGroupSize: 64,
      cpuAttentionFraction: 0,
      schedule,
      overlap: true,
    },
    workload: workloadFromSequences(lengths),
    device: 'emulated',
    capacityBytes: { gpu: GPU_BYTES },
    linkBytesPerSecond: { cpuToGpu: LINK_BYTES_PER_SECOND, gpuToCpu: LINK_BYTES_PER_SECOND },
  });
  let numSteps = 0;
  try {
    const result = await engine.run(sequences, { onStep: () => void numSteps++ });
    const loadedBytes = result.trafficBytes.prefill.cpuToGpu + result.trafficBytes.decode.cpuToGpu;
    return { result, numSteps, bytesPerToken: loadedBytes / genTokens };
  } finally {
    await engine.close();
  }
}

const zigzag = await run('zigzag');
const diagonal = await run('diagonal');
const { model } = folder;
const shapeOf = (length) => ({
  ...length,
  numLayers: model.numLayers,
  kvTokenBytes: kvRowBytes(model, 16),
  hiddenTokenBytes: hiddenBytes(model),
});
const { kvCacheBytes, activationBytes } = diagonal.result;
const least = leastWeightLoads(
  lengths.map((length) => ({ shape: shapeOf(length), count: 1 })),
  kvCacheBytes.gpu + activationBytes.gpu,
);
const ratio = zigzag.bytesPerToken / diagonal.bytesPerToken;
const outputs = ({ result }) => JSON.stringify(result.sequences.map(({ tokenIds }) => [...tokenIds]));
const areEqual = outputs(zigzag) === outputs(diagonal);

console.log(
  `${NUM_SEQUENCES} sequences of ${LEAST_GEN_TOKENS} to ${MOST_GEN_TOKENS} tokens (${genTokens} in all), ${GPU_BATCH_SIZE} x ${NUM_GPU_BATCHES} slots\n`,
);
console.log('| schedule | steps | loads of the weights per token | bytes per token |\n|---|---|---|---|');
for (const [name, { numSteps, bytesPerToken }] of Object.entries({ zigzag, diagonal }))
  console.log(`| ${name} | ${numSteps} | ${(numSteps / genTokens).toFixed(5)} | ${Math.round(bytesPerToken)} |`);
console.log(`| lower bound | | ${(least / model.numLayers / genTokens).toFixed(5)} | |\n`);
console.log(`the diagonal loads ${ratio.toFixed(2)} times less for a token (goal ${GOAL}); outputs equal: ${areEqual}`);
process.exitCode = areEqual && ratio >= GOAL ? 0 : 1;
