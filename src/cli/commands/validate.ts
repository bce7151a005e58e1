import { join } from 'node:path';
import type { SequenceLength } from '../../workload/workload.js';
import { defineCommand, type Context, type Options } from '../command.js';
import * as option from '../options.js';
import type { ValidationDocument } from '../validation-document.js';

const DEFAULTS = { promptTokens: 32, genTokens: 16, numSequences: 64, policies: 6 } as const;
const options = {
  model: option.required(option.text('--model <dir>', 'model folder of Hugging Face form')),
  hw: option.required(option.hardwareOption),
  policies: option.count('--policies <n>', `how many policies to run (default: ${DEFAULTS.policies})`),
  promptTokens: option.count('--prompt-tokens <n>', `tokens of each prompt (default: ${DEFAULTS.promptTokens})`),
  genTokens: option.count('--gen-tokens <n>', `tokens generated for each prompt (default: ${DEFAULTS.genTokens})`),
  numSequences: option.count('--num-sequences <n>', `number of prompts (default: ${DEFAULTS.numSequences})`),
  calibrate: option.text('--calibrate <file>', 'fit the profile to the runs and write it there'),
  out: option.text('--out <dir>', 'write the runs, tables, charts and one page there'),
  spillDir: option.text('--spill-dir <dir>', "the disk tier's folder (default: the system's temporary folder)"),
  ...option.deviceOptions,
  ...option.capacityOptions,
};

async function writeFiles(out: string, validation: ValidationDocument): Promise<string> {
  const { writeJson } = await import('../files.js');
  const { writeReport } = await import('../write-report.js');
  writeJson(join(out, 'validation.json'), validation);
  for (const { name, run } of validation.runs) writeJson(join(out, 'results', `${name}.json`), run);
  const [page] = await writeReport(validation.runs, out);
  return page!;
}

async function validate(given: Options<typeof options>, context: Context) {
  const promptTokens = given.promptTokens ?? DEFAULTS.promptTokens;
  const genTokens = given.genTokens ?? DEFAULTS.genTokens;
  const numSequences = given.numSequences ?? DEFAULTS.numSequences;
  const policies = given.policies ?? DEFAULTS.policies;
  const { planJob } = await import('../plan-job.js');
  const planned = await planJob({ ...given, promptTokens, genTokens, numSequences });
  if (planned.status === 'infeasible') return planned;
  const { openModelFolder } = await import('../../engine/model-folder.js');
  const { workloadFromSequences } = await import('../../workload/blocks.js');
  const { planDevice } = await import('../run-checks.js');
  const { validationPolicies } = await import('../validation-policies.js');
  const { validatePolicy } = await import('../validation-job.js');
  const { hardware, policy } = planned.plan;
  const folder = await openModelFolder(given.model);
  const length: SequenceLength = { promptTokens, genTokens };
  const workload = workloadFromSequences(Array.from({ length: numSequences }, () => length));
  const device = await planDevice(planned.plan, given);
  const chosen = validationPolicies(folder.model, hardware.profile, workload, policy, policies);
  if (chosen.length < policies) context.note(`Only ${chosen.length} of the policies fit.`);
  const setting = { folder, hardware, workload, device, spillDirectory: given.spillDir, signal: context.signal };
  const runs = [];
  for (const named of chosen) {
    context.note(`Running ${named.name} (${runs.length + 1} of ${chosen.length})`);
    runs.push(await validatePolicy(setting, named));
  }
  return { status: 'validated' as const, runs, model: folder.model, profile: hardware.profile, workload };
}

export const validateCommand = defineCommand({
  name: 'validate',
  summary: 'run several policies, each against its prediction',
  example: 'flexplan validate --model examples/opt-kjv-5m --hw this-machine.json --policies 6 --out validation',
  options,
  async run(given, context) {
    const validated = await validate(given, context);
    if (validated.status === 'infeasible') return validated.result;
    const { runs, model, profile, workload } = validated;
    const written: string[] = [];
    let fitted;
    if (given.calibrate !== undefined) {
      const { calibrateTo } = await import('../validation-calibration.js');
      const { writeJson } = await import('../files.js');
      fitted = await calibrateTo(runs, model, profile, workload);
      writeJson(given.calibrate, fitted.hardware);
      written.push(given.calibrate);
    }
    const { validationDocument } = await import('../validation-document.js');
    const document = validationDocument(runs, fitted);
    if (given.out !== undefined) written.unshift(await writeFiles(given.out, document));
    const { validationText } = await import('../validation-text.js');
    return { document, text: () => validationText(document, written) };
  },
});
