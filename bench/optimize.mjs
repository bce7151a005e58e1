/**
 * What planning costs: the whole `flexplan optimize` process for OPT-175B on the paper's T4 with all bit widths open,
 * and of that the time inside the LP solver. Needs `npm run build`. Prints medians of a few runs.
 */
import { spawnSync } from 'node:child_process';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

const RUNS = 5;
const LIMITS = { processSeconds: 2, solvingSeconds: 0.3 };

const cli = fileURLToPath(new URL('../dist/cli/main.js', import.meta.url));
const job = ['--hw', 't4', '--model', 'facebook/opt-175b', '--prompt-tokens', '512', '--gen-tokens', '32'];
const args = [cli, 'optimize', ...job, '--weight-bits', 'auto', '--kv-bits', 'auto', '--json'];

function run() {
  const start = performance.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`expected a plan, got exit status ${status}: ${stderr}`);
  return { processSeconds: (performance.now() - start) / 1e3, plan: JSON.parse(stdout) };
}

const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];

const runs = Array.from({ length: RUNS }, run);
const { search, estimate, policy } = runs[0].plan;
const processSeconds = median(runs.map((r) => r.processSeconds));
const solvingSeconds = median(runs.map((r) => r.plan.search.solvingSeconds));

console.log(`process  ${processSeconds.toFixed(2)} s (limit ${LIMITS.processSeconds} s)`);
console.log(`solving  ${solvingSeconds.toFixed(2)} s (limit ${LIMITS.solvingSeconds} s)`);
console.log(
  `programs ${search.programsSolved} for ${search.candidates} batch shapes: ${search.infeasible} do not fit, ${search.prunedByBound} proven slower`,
);
console.log(
  `plan     ${estimate.genTokensPerSecond.toFixed(3)} tokens/s with ${policy.gpuBatchSize} x ${policy.numGpuBatches}, weights ${policy.weightBits} bits, KV cache ${policy.kvCacheBits} bits`,
);
process.exitCode = processSeconds <= LIMITS.processSeconds && solvingSeconds <= LIMITS.solvingSeconds ? 0 : 1;
