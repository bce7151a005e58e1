// The whole of flexplan on one small model: measure this machine, plan, run, and set the prediction against the
// measurement. Every step is a command that you could type yourself; it is printed before it runs.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const model = 'examples/opt-kjv-5m';
const prompts = `${model}/prompts.jsonl`;
const out = 'demo-out';

// A GPU that holds a part of the model behind a slow link, and less RAM than the rest needs: all three tiers are used.
const gpuMemory = '28MiB';
const linkBandwidth = '100MB/s';
const cpuMemory = '24MiB';
// Wide launches, as a real GPU needs them. Left to itself the planner would feed this one, which is a CPU, tiny
// batches.
const batchShape = ['--gpu-batch-size', '16', '--num-gpu-batches', '4'];
const shownCompletions = 4;

const began = performance.now();

function say(text) {
  process.stdout.write(`\n${text}\n`);
}

function flexplan(...args) {
  const shown = args.map((arg) => (/\s/.test(arg) ? `"${arg}"` : arg)).join(' ');
  say(`$ flexplan ${shown}`);
  const { status } = spawnSync(process.execPath, [join(root, 'dist/cli/main.js'), ...args], {
    cwd: root,
    stdio: 'inherit',
  });
  if (status !== 0) process.exit(status ?? 1);
}

function showCompletions() {
  const read = (path) =>
    readFileSync(join(root, path), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
  const promptOf = new Map(read(prompts).map(({ custom_id, body }) => [custom_id, body.prompt]));
  for (const { custom_id, response } of read(`${out}/completions.jsonl`).slice(0, shownCompletions))
    say(`  ${promptOf.get(custom_id)}\n    ...${response.body.choices[0].text.replaceAll('\n', ' ')}`);
}

say('flexplan stands for `node dist/cli/main.js`; `npm link` puts it on your path.');
rmSync(join(root, out), { recursive: true, force: true });
mkdirSync(join(root, out));

say('1. Measure this machine. It has no GPU to spare, so one is emulated: a capped part of RAM behind a paced copy.');
flexplan(
  'profile',
  '--quick',
  '--device',
  'emulated',
  '--gpu-memory',
  gpuMemory,
  '--link-bandwidth',
  linkBandwidth,
  '--disk-dir',
  out,
  '--out',
  `${out}/machine.json`,
);

say(`2. Find the best plan for ${prompts} when only ${cpuMemory} of RAM may be used.`);
flexplan(
  'optimize',
  '--hw',
  `${out}/machine.json`,
  '--model',
  model,
  '--input',
  prompts,
  '--cpu-memory',
  cpuMemory,
  ...batchShape,
  '--out',
  `${out}/plan.json`,
);

say('3. Run it.');
flexplan(
  'run',
  '--model',
  model,
  '--plan',
  `${out}/plan.json`,
  '--input',
  prompts,
  '--output',
  `${out}/completions.jsonl`,
  '--trace',
  `${out}/trace.json`,
  '--out',
  `${out}/results/demo.json`,
);

say('4. What the model wrote (it has read nothing but the King James Bible):');
showCompletions();

say('5. Draw the report.');
flexplan('report', '--from', `${out}/results`, '--out', `${out}/report`);

say(`Done in ${Math.round((performance.now() - began) / 1000)} s. Open ${join(root, out, 'report/index.html')}`);
