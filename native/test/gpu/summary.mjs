/**
 * One line of a job's result, ours or another system's: node native/test/gpu/summary.mjs <result.json>
 */
import { readFileSync } from 'node:fs';

const {
  genTokensPerSecond: rate,
  prefillSeconds,
  decodeSeconds,
  bottleneck,
} = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const ours = typeof rate === 'object';
const parts = [
  `${(ours ? rate.measured : rate).toFixed(2)} tokens/s`,
  ours && `predicted ${rate.predicted.toFixed(2)} (${(100 * rate.error).toFixed(0)} %)`,
  `prefill ${prefillSeconds.toFixed(1)} s`,
  `decode ${decodeSeconds.toFixed(1)} s`,
  bottleneck && `bound by ${bottleneck.prefill}, ${bottleneck.decode}`,
];
console.log(parts.filter(Boolean).join(', '));
