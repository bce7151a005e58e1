/**
 * What storage in 4 bits and sparse attention cost in quality: perplexity of the example model on its held-out text.
 * Needs `npm run build` and the native engine. Exits with 1 when 4-bit weights and KV cache together lose more than the
 * limit.
 */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { everythingInMemory, openModelFolder, perplexity } from '../dist/index.js';

const WINDOW_TOKENS = 256;
const KINDS = [
  { name: '16-bit', weightBits: 16, kvCacheBits: 16 },
  { name: '4-bit weights', weightBits: 4, kvCacheBits: 16 },
  { name: '4-bit KV cache', weightBits: 16, kvCacheBits: 4 },
  { name: '4-bit weights and KV cache', weightBits: 4, kvCacheBits: 4, limit: 0.015 },
  { name: '16-bit, V of the top 10 %', weightBits: 16, kvCacheBits: 16, sparseValueFraction: 0.1 },
  { name: '4-bit weights and KV cache, V of the top 10 %', weightBits: 4, kvCacheBits: 4, sparseValueFraction: 0.1 },
];

const model = fileURLToPath(new URL('../examples/opt-kjv-5m', import.meta.url));
const bytes = readFileSync(`${model}/eval-tokens.u16`);
const tokenIds = Array.from({ length: bytes.length / 2 }, (_, i) => bytes.readUInt16LE(2 * i));
const folder = await openModelFolder(model);
const base = everythingInMemory('cpu', Math.floor(tokenIds.length / WINDOW_TOKENS));

let reference;
console.log('| storage | perplexity | loss |\n|---|---|---|');
for (const { name, limit = Infinity, ...kind } of KINDS) {
  const policy = { ...base, ...kind };
  const measured = await perplexity({ folder, policy, device: 'cpu' }, tokenIds, WINDOW_TOKENS);
  reference ??= measured;
  const loss = measured / reference - 1;
  if (!(loss <= limit)) process.exitCode = 1;
  console.log(`| ${name} | ${measured.toFixed(3)} | ${(100 * loss).toFixed(2)} % |`);
}
