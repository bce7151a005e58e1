/**
 * How much of the CPU engine's decoding is left when other processes take some of the cores: runs alone and runs beside
 * busy processes take turns, and the medians of their generated tokens per second are compared. A busy process is a
 * loop that never sleeps; the system's scheduler decides where it runs. Random weights of a Llama's shape. Needs `npm
 * run build` and the native engine.
 *
 *   node bench/contention.mjs [--busy N] [--batch 1] [--layers 4] [--rounds 5] [--threads N] [--json]
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Engine, everythingInMemory, openModelFolder, workloadFromSequences } from '../dist/index.js';
import { writeRandomLlama } from './random-model.mjs';
import { greedySequences } from './sequences.mjs';

const SHAPE = { hiddenSize: 2048, ffnSize: 5632, numHeads: 32, numKvHeads: 4, vocabSize: 32000, dtype: 'bfloat16' };
const PROMPT_TOKENS = 16;
const GEN_TOKENS = 65;
/** Until a process that was started keeps its core busy. */
const START_MILLISECONDS = 500;

const { values: options } = parseArgs({
  options: {
    busy: { type: 'string', default: String(Math.max(1, Math.floor(availableParallelism() / 2))) },
    batch: { type: 'string', default: '1' },
    layers: { type: 'string', default: '4' },
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string', default: '0' },
    json: { type: 'boolean', default: false },
  },
});
const [numBusy, batch, numThreads] = [options.busy, options.batch, options.threads].map(Number);

const temporary = mkdtempSync(join(tmpdir(), 'flexplan-contention-'));
const busy = new Set();
process.on('exit', () => {
  for (const child of busy) child.kill('SIGKILL');
  rmSync(temporary, { recursive: true, force: true });
});
process.on('SIGINT', () => process.exit(130));

const folder = await openModelFolder(writeRandomLlama(temporary, { ...SHAPE, numLayers: Number(options.layers) }));
const lengths = Array.from({ length: batch }, () => ({ promptTokens: PROMPT_TOKENS, genTokens: GEN_TOKENS }));
const sequences = greedySequences(batch, {
  promptTokens: PROMPT_TOKENS,
  genTokens: GEN_TOKENS,
  vocabSize: SHAPE.vocabSize,
});
const engine = await Engine.open({
  folder,
  policy: { ...everythingInMemory('cpu', batch), gpuBatchSize: batch },
  workload: workloadFromSequences(lengths),
  device: 'cpu',
  spillDirectory: temporary,
  ...(numThreads > 0 && { numThreads }),
});

async function decodeTokensPerSecond() {
  const { decodeSeconds } = await engine.run(sequences);
  return (batch * (GEN_TOKENS - 1)) / decodeSeconds;
}

/** The same beside busy processes. */
async function besideOthers() {
  for (let i = 0; i < numBusy; ++i) busy.add(spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }));
  try {
    await sleep(START_MILLISECONDS);
    return await decodeTokensPerSecond();
  } finally {
    await Promise.all([...busy].map((child) => new Promise((resolve) => child.once('exit', resolve).kill('SIGKILL'))));
    busy.clear();
  }
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

const alone = [];
const contended = [];
await decodeTokensPerSecond();
for (let round = 0; round < Number(options.rounds); ++round) {
  alone.push(await decodeTokensPerSecond());
  contended.push(await besideOthers());
}
await engine.close();

const fall = 1 - median(contended) / median(alone);
if (options.json) {
  console.log(JSON.stringify({ numCpus: availableParallelism(), numBusy, batch, alone, contended, fall }, null, 1));
} else {
  console.log(`decode, batch ${batch}, ${availableParallelism()} CPUs, medians of ${options.rounds} alternating runs`);
  console.log(`alone                     ${median(alone).toFixed(1)} tokens/s`);
  console.log(
    `beside ${numBusy} busy processes   ${median(contended).toFixed(1)} tokens/s: ${(100 * fall).toFixed(0)} % less`,
  );
}
