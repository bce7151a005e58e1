import type { RunResult } from '../../engine/engine.js';
import { FlexplanError } from '../../errors.js';
import { SCHEDULES } from '../../policy/policy.js';
import type { RunDocument } from '../../report/run-document.js';
import { defineCommand, type Context, type Options } from '../command.js';
import * as option from '../options.js';

const options = {
  model: option.required(option.text('--model <dir>', 'model folder of Hugging Face form')),
  plan: option.text('--plan <file>', 'plan that `flexplan optimize --out` wrote'),
  hw: option.text('--hw <profile>', 'plan first, for the device that this hardware profile was measured on'),
  input: option.required(option.text('--input <file>', 'prompts, one JSON object a line (OpenAI batch form)')),
  output: option.required(option.text('--output <file>', 'where the completions go, one JSON object a line')),
  overwrite: option.flag('--overwrite', 'replace an output that is already there'),
  trace: option.text('--trace <file>', 'write every task of the run as a Chrome trace'),
  out: option.text('--out <file>', 'write the result with its prediction, for flexplan report'),
  spillDir: option.text('--spill-dir <dir>', "the disk tier's folder (default: that of the output)"),
  ...option.sparseValuesOptions,
  schedule: option.choice(
    '--schedule <name>',
    'zigzag: block after block; diagonal: waiting prompts enter as others end (default: as planned)',
    ...SCHEDULES,
  ),
  ...option.deviceOptions,
  ...option.quantizationCacheOptions,
  ...option.capacityOptions,
};

async function planOf(given: Options<typeof options>, context: Context) {
  if ((given.plan === undefined) === (given.hw === undefined))
    throw new FlexplanError(
      'usage',
      `expected --plan or --hw, got ${given.plan === undefined ? 'neither' : 'both'}; give one of them`,
    );
  if (given.plan !== undefined) return (await import('../documents.js')).loadPlan(given.plan);
  const { planJob } = await import('../plan-job.js');
  context.note('Planning ...');
  return planJob({ ...given, hw: given.hw! });
}

async function writeFiles({ out, trace }: Options<typeof options>, document: RunDocument, run: RunResult) {
  const { writeFileAtomic, writeJson } = await import('../files.js');
  if (out !== undefined) writeJson(out, document);
  if (trace === undefined) return;
  const { chromeTrace } = await import('../../report/chrome-trace.js');
  const title = `${document.plan.model.name} on ${document.device}`;
  writeFileAtomic(trace, JSON.stringify(chromeTrace(run.trace, title)));
}

export const runCommand = defineCommand({
  name: 'run',
  summary: 'run a plan over a file of prompts',
  example:
    'flexplan run --model examples/opt-kjv-5m --hw this-machine.json --input prompts.jsonl --output completions.jsonl',
  options,
  async run(given, context) {
    const planned = await planOf(given, context);
    if (planned.status === 'infeasible') return planned.result;
    const { runJob } = await import('../run-job.js');
    const { withSparseValues } = await import('../documents.js');
    const policy = withSparseValues(planned.plan.policy, given.sparseValues);
    const plan = { ...planned.plan, policy: given.schedule ? { ...policy, schedule: given.schedule } : policy };
    const job = await runJob(plan, given.model, given, given.trace !== undefined, context);
    if (job.badRequests > 0)
      context.note(`${job.badRequests} requests could not be served; their lines in ${given.output} say why.`);
    if (!job.document || !job.run) {
      const document = { schemaVersion: 1, status: 'nothing-to-do', output: given.output, ...job };
      return { document, text: () => `All ${job.resumedRequests} requests were finished before: ${given.output}` };
    }
    const { document, run } = job;
    await writeFiles(given, document, run);
    const { runText } = await import('../run-text.js');
    return { document, text: () => runText(document, given.output) };
  },
});
