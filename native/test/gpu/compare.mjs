/**
 * What the jobs of gpu-check.sh came to, ours against FlexGen's and Accelerate's, and against the link that binds ours.
 *
 *   node native/test/gpu/compare.mjs <folder of results>      Prints a table and writes compare.json there.
 *
 * A job that was skipped or failed is a gap in the table. Throughput is generated tokens / (prefill + decode seconds).
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const FLEXGEN_TARGET = 2;
const ROOFLINE_TARGET = 0.85;

// Files without ".json". Of several of FlexGen's policies the best counts.
const CASES = [
  { name: 'OPT-6.7B on the GPU', ours: 'opt-6.7b-on-gpu', flexgen: ['flexgen-6.7b'], accelerate: 'accelerate-6.7b' },
  {
    name: 'OPT-30B, 16 GB',
    ours: 'opt-30b-16gb',
    flexgen: ['flexgen-30b-16gb'],
    accelerate: 'accelerate-30b',
    offloaded: true,
  },
  {
    name: 'OPT-30B 4-bit, 16 GB',
    ours: 'opt-30b-int4-16gb',
    flexgen: ['flexgen-30b-int4-16gb', 'flexgen-30b-int4-weights-16gb'],
    offloaded: true,
  },
  { name: 'OPT-66B 4-bit, 16 GB', ours: 'opt-66b-int4-16gb', flexgen: ['flexgen-66b-int4-16gb'], offloaded: true },
  { name: 'OPT-175B 4-bit, 16 GB', ours: 'opt-175b-int4-16gb', flexgen: ['flexgen-175b-int4-16gb'], offloaded: true },
];

const folder = process.argv[2];
if (!folder || !existsSync(folder)) {
  console.error(`expected a folder of results, got ${folder ?? 'nothing'}; run native/test/gpu-check.sh first`);
  process.exit(2);
}

/** What a job left, or null: a job that failed leaves nothing, or half a document. */
function read(name) {
  try {
    return JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8'));
  } catch {
    return null;
  }
}

/**
 * The least seconds of a phase: what crosses the busiest link at the profile's rate; where computing binds, the
 * estimate's compute stage, which is made of the profile's matmul and memory rates.
 */
function leastSeconds({ estimate, hardware }, phase) {
  const stage = estimate.bottleneck[phase];
  const link = hardware.profile.links[stage];
  return link ? estimate.trafficBytes[phase][stage] / link.bytesPerSecond.value : estimate.stageSeconds[phase][stage];
}

function rooflineOf(title, run) {
  const plan = read(`${title}.plan`);
  if (!plan) return null;
  const least = leastSeconds(plan, 'prefill') + leastSeconds(plan, 'decode');
  return { fraction: least / (run.prefillSeconds + run.decodeSeconds), binding: plan.estimate.bottleneck };
}

const throughput = (document) => document?.genTokensPerSecond ?? null;
const target = (least, value) => ({ least, met: value === null ? null : value >= least });
const ratio = (ours, theirs) => (ours !== null && theirs !== null ? ours / theirs : null);

function compare({ name, ours: title, flexgen: policies, accelerate: peer, offloaded = false }) {
  const run = read(title);
  const ours = run?.genTokensPerSecond.measured ?? null;
  const best = policies.map((policy) => throughput(read(policy))).filter((rate) => rate !== null);
  const flexgen = best.length > 0 ? Math.max(...best) : null;
  const accelerate = peer ? throughput(read(peer)) : null;
  const roofline = run && rooflineOf(title, run);
  const timesFlexgen = ratio(ours, flexgen);
  return {
    name,
    genTokensPerSecond: { ours, flexgen, accelerate },
    timesFlexgen,
    timesAccelerate: ratio(ours, accelerate),
    rooflineFraction: roofline?.fraction ?? null,
    binding: roofline?.binding ?? null,
    targets: {
      ...(offloaded && { timesFlexgen: target(FLEXGEN_TARGET, timesFlexgen) }),
      rooflineFraction: target(ROOFLINE_TARGET, roofline?.fraction ?? null),
    },
  };
}

const format = (value, digits = 2) => (value === null ? '-' : value.toFixed(digits));
const verdict = ({ targets }) =>
  Object.entries(targets)
    .filter(([, { met }]) => met !== null)
    .map(([what, { least, met }]) => `${what} ${least}: ${met ? 'met' : 'missed'}`)
    .join(', ');

const COLUMNS = ['case', 'ours', 'FlexGen', 'x', 'Accelerate', 'x', 'roofline', 'bound by', 'targets'];
const rowOf = (result) => [
  result.name,
  format(result.genTokensPerSecond.ours),
  format(result.genTokensPerSecond.flexgen),
  format(result.timesFlexgen, 1),
  format(result.genTokensPerSecond.accelerate),
  format(result.timesAccelerate, 1),
  format(result.rooflineFraction),
  result.binding ? `${result.binding.prefill}, ${result.binding.decode}` : '-',
  verdict(result),
];

const results = CASES.map(compare);
writeFileSync(join(folder, 'compare.json'), `${JSON.stringify({ source: 'measured', cases: results }, null, 1)}\n`);
const rows = [COLUMNS, ...results.map(rowOf)];
const widths = COLUMNS.map((_, column) => Math.max(...rows.map((row) => row[column].length)));
for (const row of rows)
  console.log(
    row
      .map((cell, column) => cell.padEnd(widths[column]))
      .join('  ')
      .trimEnd(),
  );
console.log('tokens/s; Accelerate runs 16 bits only (its 4 bits need bitsandbytes)');
const compared = results.filter(({ genTokensPerSecond: { ours } }) => ours !== null).length;
console.log(`${compared} of ${CASES.length} cases measured; see compare.json`);
