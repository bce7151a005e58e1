/**
 * A model whose weights all stay on disk: what decoding draws from the disk against what the profiler's instrument
 * reads there, in turns; how much of memory and page cache that takes; and how long 4-bit weights take to load,
 * quantized anew and from the file that keeps them. Needs `npm run build` and the native engine. Exits with 1 below the
 * limit.
 *
 *   node bench/disk.mjs [--directory DIR] [--layers N]     directory: on the disk to measure; 88 MB a layer
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { Engine, openModelFolder, withInstruments, workloadFromSequences } from '../dist/index.js';
import { writeRandomLlama } from './random-model.mjs';
import { greedySequences } from './sequences.mjs';

const LIMIT = 0.85;
const SHAPE = { hiddenSize: 2048, ffnSize: 5632, numHeads: 32, numKvHeads: 4, vocabSize: 4096 };
const PROMPT_TOKENS = 4;
const DECODE_STEPS = 3;
const TURNS = 3;
const INSTRUMENT_BYTES = 512 * 2 ** 20;
const REQUEST_BYTES = 4 * 2 ** 20;
/** The engine does not keep weights of files that have only just been written. */
const SETTLE_MILLISECONDS = 3100;

const { values: options } = parseArgs({
  options: { directory: { type: 'string', default: tmpdir() }, layers: { type: 'string', default: '10' } },
});

const temporary = mkdtempSync(join(options.directory, 'flexplan-disk-'));
process.on('exit', () => rmSync(temporary, { recursive: true, force: true }));
process.on('SIGINT', () => process.exit(130));
const folder = await openModelFolder(writeRandomLlama(temporary, { ...SHAPE, numLayers: Number(options.layers) }));
const lengths = [{ promptTokens: PROMPT_TOKENS, genTokens: DECODE_STEPS + 1 }];
const onDisk = { gpu: 0, cpu: 0, disk: 1 };
const inRam = { gpu: 0, cpu: 1, disk: 0 };
const policyOf = (weights, weightBits) => ({
  gpuBatchSize: 1,
  numGpuBatches: 1,
  placement: { weights, kvCache: inRam, activations: inRam },
  weightBits,
  kvCacheBits: 16,
  quantGroupSize: 64,
  cpuAttentionFraction: 0,
  overlap: true,
});
const [sequence] = greedySequences(1, {
  promptTokens: PROMPT_TOKENS,
  genTokens: DECODE_STEPS + 1,
  vocabSize: SHAPE.vocabSize,
});

const open = (policy, quantizationCache = false) =>
  Engine.open({
    folder,
    policy,
    workload: workloadFromSequences(lengths),
    device: 'cpu',
    spillDirectory: temporary,
    quantizationCache,
  });

const kib = (path, name) => 1024 * Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(readFileSync(path, 'utf8'))[1]);
const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
const rate = (bytesPerSecond) => `${(bytesPerSecond / 1e9).toFixed(2)} GB/s`;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(0)} MB`;

async function instrumentRate() {
  const request = { directory: temporary, fileBytes: INSTRUMENT_BYTES, requestBytes: REQUEST_BYTES, repetitions: 3 };
  const { seconds, work } = await withInstruments((instruments) => instruments.diskRead(request));
  return work / median([...seconds]);
}

async function engineRun() {
  const engine = await open(policyOf(onDisk, 16));
  const cachedBefore = kib('/proc/meminfo', 'Cached');
  const { decodeSeconds, trafficBytes, peakBytes, stageSeconds } = await engine.run([sequence]);
  const cacheGrowth = kib('/proc/meminfo', 'Cached') - cachedBefore;
  const residentPeakBytes = kib(`/proc/${engine.pid}/status`, 'VmHWM');
  await engine.close();
  const bytes = trafficBytes.decode.diskToCpu;
  return {
    rate: bytes / decodeSeconds,
    busy: stageSeconds.decode.diskToCpu / decodeSeconds,
    bytes,
    cacheGrowth,
    peakBytes,
    residentPeakBytes,
  };
}

async function loadSeconds(cache) {
  const start = performance.now();
  const engine = await open(policyOf(inRam, 4), cache);
  const seconds = (performance.now() - start) / 1e3;
  await engine.close();
  return seconds;
}

const turns = [];
for (let turn = 0; turn < TURNS; turn++) {
  const before = await instrumentRate();
  const run = await engineRun();
  const instrument = (before + (await instrumentRate())) / 2;
  turns.push({ ...run, instrument, ratio: run.rate / instrument });
}
turns.sort((a, b) => a.ratio - b.ratio);
const middle = turns[Math.floor(TURNS / 2)];
console.log(`| decoding from disk (median of ${TURNS}, in turns) | |\n|---|---|`);
console.log(`| read by the engine, over all of the decode time | ${rate(middle.rate)} |`);
console.log(`| read by the instrument | ${rate(middle.instrument)} |`);
console.log(
  `| **engine / instrument** | ${middle.ratio.toFixed(3)} (${turns.map((t) => t.ratio.toFixed(3)).join(', ')}; limit ${LIMIT}) |`,
);
console.log(`| share of the time in which the disk was asked for something | ${middle.busy.toFixed(3)} |`);
console.log(`| read in a run's decoding | ${megabytes(middle.bytes)} |`);
console.log(
  `| growth of the system's page cache meanwhile | ${megabytes(Math.max(...turns.map((t) => t.cacheGrowth)))} |`,
);
console.log(
  `| peak of the plan's cpu tier / of the process | ${megabytes(middle.peakBytes.cpu)} / ${megabytes(middle.residentPeakBytes)} |\n`,
);

await sleep(SETTLE_MILLISECONDS);
const without = await loadSeconds(false);
const making = await loadSeconds({ leastBytes: 0 });
const kept = median([
  await loadSeconds({ leastBytes: 0 }),
  await loadSeconds({ leastBytes: 0 }),
  await loadSeconds({ leastBytes: 0 }),
]);
console.log('| opening an engine with 4-bit weights | seconds |\n|---|---|');
console.log(`| quantized, not kept | ${without.toFixed(2)} |`);
console.log(`| quantized and kept | ${making.toFixed(2)} |`);
console.log(`| read from the file that keeps them | ${kept.toFixed(2)} |`);
process.exitCode = middle.ratio >= LIMIT ? 0 : 1;
