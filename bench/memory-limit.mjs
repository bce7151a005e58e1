/**
 * A model with more weights than the memory that this process may take: the machine is measured, a plan made for each
 * batch size and run, prompt 512, generate 32. Prints what the plan foresaw and what happened. Random weights of a
 * Llama's shape (1.1B: 2.2 GB). Needs `npm run build` and the native engine. Nothing but the limit keeps the rest of
 * the machine's memory away, page cache included, so run it where there is one:
 *
 *   systemd-run --scope -p MemoryMax=1500M node bench/memory-limit.mjs [--batches 1,16,64] [--kv-bits 16|4|auto]
 *                                            [--layers 22] [--directory DIR]     directory: on the disk to read from
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import {
  Engine,
  formatBytes,
  hostLimits,
  openModelFolder,
  optimize,
  profileMachine,
  withInstruments,
  workloadFromSequences,
} from '../dist/index.js';
import { writeRandomLlama } from './random-model.mjs';
import { greedySequences } from './sequences.mjs';

const SHAPE = { hiddenSize: 2048, ffnSize: 5632, numHeads: 32, numKvHeads: 4, vocabSize: 32000, dtype: 'bfloat16' };
const PROMPT_TOKENS = 512;
const GEN_TOKENS = 32;
const JOB = { promptTokens: PROMPT_TOKENS, genTokens: GEN_TOKENS, vocabSize: SHAPE.vocabSize };

const { values: options } = parseArgs({
  options: {
    batches: { type: 'string', default: '1,16,64' },
    'kv-bits': { type: 'string', default: '16' },
    layers: { type: 'string', default: '22' },
    directory: { type: 'string', default: tmpdir() },
  },
});
const kvCacheBits = options['kv-bits'] === 'auto' ? 'auto' : Number(options['kv-bits']);

const temporary = mkdtempSync(join(options.directory, 'flexplan-memory-'));
process.on('exit', () => rmSync(temporary, { recursive: true, force: true }));
process.on('SIGINT', () => process.exit(130));
const folder = await openModelFolder(writeRandomLlama(temporary, { ...SHAPE, numLayers: Number(options.layers) }));
const limits = hostLimits();

const hardware = await withInstruments((instruments) =>
  profileMachine(instruments, {
    name: 'here',
    device: 'cpu',
    quick: true,
    limits,
    linkBytesPerSecond: 0,
    diskDirectory: temporary,
    diskFreeBytes: 2 ** 40,
    date: new Date().toISOString(),
    nodeVersion: process.version,
  }),
);

async function rowOf(batch) {
  const lengths = Array.from({ length: batch }, () => ({ promptTokens: PROMPT_TOKENS, genTokens: GEN_TOKENS }));
  const workload = workloadFromSequences(lengths);
  const planned = await optimize(folder.model, hardware, workload, {
    gpuBatchSize: batch,
    numGpuBatches: 1,
    kvCacheBits,
  });
  if (planned.status !== 'optimal') return { lack: planned.remedies[0] };
  const { plan } = planned;
  const engine = await Engine.open({ folder, policy: plan.policy, workload, device: 'cpu', spillDirectory: temporary });
  try {
    const result = await engine.run(greedySequences(batch, JOB));
    const [, peakKib] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${engine.pid}/status`, 'utf8'));
    return { plan, result, residentPeakBytes: 1024 * Number(peakKib) };
  } finally {
    await engine.close();
  }
}

const percent = (fraction) => `${(100 * fraction).toFixed(0)} %`;
const steps = GEN_TOKENS - 1;

console.log(
  `${formatBytes(limits.availableMemoryBytes)} of memory; disk ${(hardware.links.diskToCpu.bytesPerSecond.value / 1e9).toFixed(2)} GB/s\n`,
);
console.log(
  '| batch | weights on disk | read per step | decode, tokens/s | foreseen | prefill, tokens/s | foreseen | peak of the process / of the plan |\n|---|---|---|---|---|---|---|---|',
);
for (const batch of options.batches.split(',').map(Number)) {
  const { lack, plan, result, residentPeakBytes } = await rowOf(batch);
  if (lack) {
    console.log(`| ${batch} | does not fit: ${lack} |`);
    continue;
  }
  const { policy, estimate } = plan;
  const cells = [
    batch,
    percent(policy.placement.weights.disk),
    formatBytes(result.trafficBytes.decode.diskToCpu / steps),
    ((batch * steps) / result.decodeSeconds).toFixed(2),
    ((batch * steps) / estimate.decodeSeconds).toFixed(2),
    ((batch * PROMPT_TOKENS) / result.prefillSeconds).toFixed(1),
    ((batch * PROMPT_TOKENS) / estimate.prefillSeconds).toFixed(1),
    `${formatBytes(residentPeakBytes)} / ${formatBytes(result.peakBytes.cpu)}`,
  ];
  console.log(`| ${cells.join(' | ')} |`);
}
