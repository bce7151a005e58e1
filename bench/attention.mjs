/**
 * Decode attention of the CPU over a KV cache in RAM: GB/s of K and V rows read, and as a share of what the memory
 * gives when it is only read. Each round measures both, one after the other; the best of each counts, so that a share
 * is never flattered by a disturbed ceiling. Needs `npm run build` and the native engine.
 *
 *   node bench/attention.mjs [--batch 16] [--context 2048] [--heads 32/8,32/32] [--head-dims 64,128] [--kv-bits 16,4] [--threads N]
 *                            [--rounds 5] [--json]
 */
import { parseArgs } from 'node:util';
import { withInstruments } from '../dist/index.js';

const REPETITIONS = 5;
const MEMORY_BYTES = 512 * 2 ** 20;

const { values: options } = parseArgs({
  options: {
    batch: { type: 'string', default: '16' },
    context: { type: 'string', default: '2048' },
    heads: { type: 'string', default: '32/8,32/32' },
    'head-dims': { type: 'string', default: '64,128' },
    'kv-bits': { type: 'string', default: '16,4' },
    threads: { type: 'string', default: '0' },
    rounds: { type: 'string', default: '5' },
    json: { type: 'boolean', default: false },
  },
});
const list = (text) => text.split(',');
const numThreads = Number(options.threads);
const best = ({ seconds, work }) => work / Math.min(...seconds);

const settings = list(options['kv-bits']).flatMap((bits) =>
  list(options.heads).flatMap((heads) =>
    list(options['head-dims']).map((headDim) => {
      const [numHeads, numKvHeads] = heads.split('/').map(Number);
      return { numHeads, numKvHeads, headDim: Number(headDim), kvCacheBits: Number(bits) };
    }),
  ),
);

async function measure({ attention, memoryRead }, setting) {
  const common = { device: 'cpu', repetitions: REPETITIONS, numThreads };
  const lengths = { phase: 'decode', sequences: Number(options.batch), tokens: Number(options.context) };
  let bytesPerSecond = 0;
  let memoryBytesPerSecond = 0;
  for (let round = 0; round < Number(options.rounds); round++) {
    const attended = await attention({ ...common, ...lengths, ...setting, dtype: 'float16' });
    bytesPerSecond = Math.max(bytesPerSecond, best(attended));
    memoryBytesPerSecond = Math.max(memoryBytesPerSecond, best(await memoryRead({ ...common, bytes: MEMORY_BYTES })));
  }
  return { ...setting, bytesPerSecond, memoryBytesPerSecond, ofMemory: bytesPerSecond / memoryBytesPerSecond };
}

const rows = [];
await withInstruments(async (instruments) => {
  for (const setting of settings) rows.push(await measure(instruments, setting));
});

if (options.json) {
  console.log(JSON.stringify({ batch: Number(options.batch), context: Number(options.context), rows }, null, 1));
} else {
  const gigabytes = (rate) => (rate / 1e9).toFixed(1);
  console.log(`decode attention on the CPU, batch ${options.batch}, context ${options.context}\n`);
  console.log('| KV cache | heads / KV heads | head size | GB/s of KV rows | memory, GB/s | of memory |');
  console.log('|---|---|---|---|---|---|');
  for (const row of rows)
    console.log(
      `| ${row.kvCacheBits} bits | ${row.numHeads} / ${row.numKvHeads} | ${row.headDim} | ${gigabytes(row.bytesPerSecond)} | ` +
        `${gigabytes(row.memoryBytesPerSecond)} | ${(100 * row.ofMemory).toFixed(0)} % |`,
    );
}
