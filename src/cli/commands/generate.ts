import { FlexplanError } from '../../errors.js';
import type { GenerateOptions, Prompt } from '../../engine/generate.js';
import { defineCommand, type Context, type Options } from '../command.js';
import { heading, paragraphs } from '../format.js';
import * as option from '../options.js';

const options = {
  model: option.required(option.modelOption),
  prompt: option.list('--prompt <text...>', 'a prompt; several: repeat it', (text) => text),
  promptIds: option.list(
    '--prompt-ids <ids...>',
    'a prompt as token ids, such as 2,15,7; several: repeat it',
    option.readIds,
  ),
  maxTokens: option.count('--max-tokens <n>', 'tokens to generate for each prompt (default: 16)'),
  temperature: option.number('--temperature <t>', '0, the default, is greedy'),
  topP: option.number('--top-p <p>', 'sample from the most likely tokens of this share (default: 1)', 0, 1),
  seed: option.number('--seed <n>', 'prompt number i samples with seed + i (default: 0)', 0, 2 ** 31),
  ignoreEos: option.flag('--ignore-eos', 'go on after an end-of-text token'),
  policy: option.text('--policy <file>', 'policy to run under (default: everything in memory)'),
  plan: option.text('--plan <file>', 'plan whose policy to run under'),
  logits: option.count('--logits <n>', 'add the full logits of the first n steps to the JSON'),
  ...option.sparseValuesOptions,
  ...option.deviceOptions,
  ...option.quantizationCacheOptions,
  ...option.capacityOptions,
};

function promptsOf({ prompt = [], promptIds = [] }: Options<typeof options>): Prompt[] {
  const prompts = [...prompt, ...promptIds];
  if (prompts.length === 0)
    throw new FlexplanError('usage', 'expected --prompt TEXT or --prompt-ids IDS, got neither; give at least one');
  return prompts;
}

async function settings(given: Options<typeof options>, context: Context): Promise<GenerateOptions> {
  const { openModelFolder } = await import('../../engine/model-folder.js');
  const { loadTokenizer } = await import('../../engine/tokenizer.js');
  const { everythingInMemory } = await import('../../engine/default-policy.js');
  const { chosenPolicy, withSparseValues } = await import('../documents.js');
  const { deviceSettings, quantizationCache } = await import('../device.js');
  const folder = await openModelFolder(given.model);
  const tokenizer = await loadTokenizer(folder.path);
  const prompts = promptsOf(given);
  const device = await deviceSettings(given);
  const policy = (await chosenPolicy(given)) ?? everythingInMemory(device.device, prompts.length);
  const chosen = {
    tokenizer,
    maxTokens: given.maxTokens,
    temperature: given.temperature,
    topP: given.topP,
    seed: given.seed,
    ignoreEos: given.ignoreEos,
    logitsSteps: given.logits,
  };
  const named = Object.entries(chosen).filter(([, value]) => value !== undefined);
  return {
    folder,
    prompts,
    policy: withSparseValues(policy, given.sparseValues),
    signal: context.signal,
    ...device,
    ...quantizationCache(given),
    ...(Object.fromEntries(named) as Partial<GenerateOptions>),
  };
}

export const generateCommand = defineCommand({
  name: 'generate',
  summary: 'complete one prompt or a few',
  example: 'flexplan generate --model examples/opt-kjv-5m --prompt "In the beginning" --max-tokens 24',
  options,
  async run(given, context) {
    promptsOf(given);
    const { generate } = await import('../../engine/generate.js');
    const request = await settings(given, context);
    const completions = await generate(request);
    return {
      document: {
        schemaVersion: 1,
        completions: completions.map(({ logits, ...completion }) =>
          logits ? { ...completion, logits: logits.map((step) => Array.from(step)) } : completion,
        ),
      },
      text: () =>
        paragraphs(
          ...completions.map(({ promptIds, tokenIds, text }, i) => {
            const prompt = request.prompts[i]!;
            return `${heading(typeof prompt === 'string' ? prompt : promptIds.join(','))}${text ?? ` ${tokenIds.join(',')}`}`;
          }),
        ),
    };
  },
});
