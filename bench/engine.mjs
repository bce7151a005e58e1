/**
 * How fast the CPU engine is with everything in RAM: prompt 512, generate 32, at several batch sizes, as tokens per
 * second of each phase (medians of --runs runs) and as shares of what the machine's arithmetic and memory give in the
 * same run. Random weights of a Llama's shape (1.1B by default). Needs `npm run build` and the native engine; 1.1B
 * needs 2.2 GB of disk and RAM.
 *
 *   node bench/engine.mjs [--dtype bfloat16|float16] [--weight-bits 16,4] [--batches 1,4,16,64] [--layers 22] [--threads N]
 *                         [--runs 1] [--json]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Engine, everythingInMemory, openModelFolder, withInstruments, workloadFromSequences } from '../dist/index.js';
import { writeRandomLlama } from './random-model.mjs';
import { greedySequences } from './sequences.mjs';

const SHAPE = { hiddenSize: 2048, ffnSize: 5632, numHeads: 32, numKvHeads: 4, vocabSize: 32000 };
const PROMPT_TOKENS = 512;
const GEN_TOKENS = 32;
const JOB = { promptTokens: PROMPT_TOKENS, genTokens: GEN_TOKENS, vocabSize: SHAPE.vocabSize };
const QUANT_GROUP = 64;
const QUANT_GROUP_BYTES = 36;
const REPETITIONS = 7;
const MEMORY_BYTES = 512 * 2 ** 20;

const { values: options } = parseArgs({
  options: {
    dtype: { type: 'string', default: 'bfloat16' },
    'weight-bits': { type: 'string', default: '16,4' },
    batches: { type: 'string', default: '1,4,16,64' },
    layers: { type: 'string', default: '22' },
    threads: { type: 'string', default: '0' },
    runs: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
  },
});
const numbers = (text) => text.split(',').map(Number);
const numThreads = Number(options.threads);
const shape = { ...SHAPE, numLayers: Number(options.layers), dtype: options.dtype };

const kvSize = (SHAPE.hiddenSize / SHAPE.numHeads) * SHAPE.numKvHeads;
const layerWeights = 2 * SHAPE.hiddenSize * (SHAPE.hiddenSize + kvSize) + 3 * SHAPE.hiddenSize * SHAPE.ffnSize;
const headWeights = SHAPE.hiddenSize * SHAPE.vocabSize;
const decoderFlopsPerToken = 2 * shape.numLayers * layerWeights;

const temporary = mkdtempSync(join(tmpdir(), 'flexplan-engine-'));
process.on('exit', () => rmSync(temporary, { recursive: true, force: true }));
process.on('SIGINT', () => process.exit(130));
const folder = await openModelFolder(writeRandomLlama(temporary, shape));

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const best = ({ seconds, work }) => work / Math.min(...seconds);

/** The machine's ceilings, best of several: a share of them is never flattered by a disturbed ceiling. */
const ceilings = (weightBits) =>
  withInstruments(async ({ matmul, memoryRead }) => ({
    flopsPerSecond: best(
      await matmul({
        device: 'cpu',
        tokens: PROMPT_TOKENS,
        rows: SHAPE.ffnSize,
        cols: SHAPE.hiddenSize,
        dtype: options.dtype,
        weightBits,
        repetitions: REPETITIONS,
        numThreads,
      }),
    ),
    bytesPerSecond: best(
      await memoryRead({ device: 'cpu', bytes: MEMORY_BYTES, repetitions: REPETITIONS, numThreads }),
    ),
  }));

async function runOf(weightBits, batch) {
  const policy = { ...everythingInMemory('cpu', batch), gpuBatchSize: batch, weightBits };
  const lengths = Array.from({ length: batch }, () => ({ promptTokens: PROMPT_TOKENS, genTokens: GEN_TOKENS }));
  const engine = await Engine.open({
    folder,
    policy,
    workload: workloadFromSequences(lengths),
    device: 'cpu',
    spillDirectory: temporary,
    quantizationCache: true,
    ...(numThreads > 0 && { numThreads }),
  });
  try {
    const runs = [];
    for (let i = 0; i < Number(options.runs); ++i) runs.push(await engine.run(greedySequences(batch, JOB)));
    return {
      prefillSeconds: median(runs.map((run) => run.prefillSeconds)),
      decodeSeconds: median(runs.map((run) => run.decodeSeconds)),
    };
  } finally {
    await engine.close();
  }
}

const rows = [];
for (const weightBits of numbers(options['weight-bits'])) {
  const { flopsPerSecond, bytesPerSecond } = await ceilings(weightBits);
  const weightBytes =
    (weightBits === 4 ? QUANT_GROUP_BYTES / QUANT_GROUP : 2) * (shape.numLayers * layerWeights + headWeights);
  for (const batch of numbers(options.batches)) {
    const { prefillSeconds, decodeSeconds } = await runOf(weightBits, batch);
    const steps = GEN_TOKENS - 1;
    const kvBytes = 2 * 2 * kvSize * shape.numLayers * batch * (PROMPT_TOKENS + GEN_TOKENS / 2);
    rows.push({
      weightBits,
      batch,
      prefillTokensPerSecond: (batch * PROMPT_TOKENS) / prefillSeconds,
      decodeTokensPerSecond: (batch * steps) / decodeSeconds,
      genTokensPerSecond: (batch * GEN_TOKENS) / (prefillSeconds + decodeSeconds),
      prefillOfMatmul: (batch * PROMPT_TOKENS * decoderFlopsPerToken) / prefillSeconds / flopsPerSecond,
      decodeOfMemory: (steps * (weightBytes + kvBytes)) / decodeSeconds / bytesPerSecond,
      flopsPerSecond,
      bytesPerSecond,
    });
  }
}

if (options.json) {
  console.log(JSON.stringify({ shape, promptTokens: PROMPT_TOKENS, genTokens: GEN_TOKENS, rows }, null, 1));
} else {
  const percent = (fraction) => `${(100 * fraction).toFixed(0)} %`;
  console.log(
    `${options.dtype}, ${shape.numLayers} layers, prompt ${PROMPT_TOKENS}, generate ${GEN_TOKENS}; tokens per second\n`,
  );
  console.log(
    '| weights | batch | prefill | of matmul | decode | of memory | generated, whole job |\n|---|---|---|---|---|---|---|',
  );
  for (const row of rows)
    console.log(
      `| ${row.weightBits} bits | ${row.batch} | ${row.prefillTokensPerSecond.toFixed(0)} | ${percent(row.prefillOfMatmul)} | ${row.decodeTokensPerSecond.toFixed(1)} | ${percent(row.decodeOfMemory)} | ${row.genTokensPerSecond.toFixed(2)} |`,
    );
  const [{ flopsPerSecond, bytesPerSecond }] = rows;
  console.log(
    `\nmatmul ${(flopsPerSecond / 1e9).toFixed(0)} GFLOP/s, memory ${(bytesPerSecond / 1e9).toFixed(1)} GB/s (best of ${REPETITIONS}, this run)`,
  );
}
