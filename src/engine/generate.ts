/** Prompts -> completions: what `flexplan generate` does. */
import { FlexplanError } from '../errors.js';
import type { Policy } from '../policy/policy.js';
import { workloadFromSequences } from '../workload/blocks.js';
import { sharedPromptTokens } from '../workload/shared-prompt.js';
import type { SequenceLength, Workload } from '../workload/workload.js';
import { CompletionBuilder, CompletionCollector, type CompletionText } from './completion.js';
import { everythingInMemory } from './default-policy.js';
import { Engine, type EngineOptions, type Sequence } from './engine.js';
import { promptFault } from './sequences.js';
import type { Tokenizer } from './tokenizer.js';

/** A text, or token ids as they are (no special tokens are added). */
export type Prompt = string | readonly number[];

export interface GenerateOptions extends Omit<EngineOptions, 'policy' | 'workload'> {
  readonly prompts: readonly Prompt[];
  /** Absent: prompts must be token ids, and completions have no text. */
  readonly tokenizer?: Tokenizer;
  /** Absent: everything in the device's memory. */
  readonly policy?: Policy;
  /** Absent: 16. */
  readonly maxTokens?: number;
  /** 0, the default, is greedy. */
  readonly temperature?: number;
  /** Absent: 1. */
  readonly topP?: number;
  /** Absent: 0. Prompt number i samples with seed + i. */
  readonly seed?: number;
  /** Go on after an end-of-text token. */
  readonly ignoreEos?: boolean;
  readonly stopStrings?: readonly string[];
  /** Keep the logits of the first so many generated positions. Absent: 0. */
  readonly logitsSteps?: number;
}

export interface Completion extends CompletionText {
  readonly promptIds: readonly number[];
  /** vocabSize each; only when asked for. */
  readonly logits?: readonly Float32Array[];
}

export const DEFAULT_MAX_TOKENS = 16;

/** Completes all prompts in one run and gives the completions in the order of the prompts. */
export async function generate(options: GenerateOptions): Promise<Completion[]> {
  const { folder, device, policy, tokenizer, stopStrings = [], signal } = options;
  const prompts = options.prompts.map((prompt) => promptIdsOf(prompt, tokenizer, folder.path));
  const sequences = prompts.map((ids, index) => sequenceOf(ids, index, options));
  const engine = await Engine.open({
    ...options,
    policy: policy ?? everythingInMemory(device, sequences.length),
    workload: workloadOf(sequences),
  });
  try {
    const completions = new Array<CompletionText>(sequences.length);
    const builders = sequences.map(() => new CompletionBuilder(tokenizer, stopStrings));
    const collector = new CompletionCollector(builders, (sequence) => engine.cancelSequence(sequence));
    const result = await engine.run(sequences, {
      onStep: (event) => {
        for (const { sequence, completion } of collector.step(event)) completions[sequence] = completion;
      },
      ...(signal ? { signal } : {}),
    });
    return completions.map((completion, i) => {
      const { logits } = result.sequences[i]!;
      return { promptIds: prompts[i]!, ...completion, ...(logits.length > 0 ? { logits } : {}) };
    });
  } finally {
    await engine.close();
  }
}

function promptIdsOf(prompt: Prompt, tokenizer: Tokenizer | undefined, folderPath: string): readonly number[] {
  if (typeof prompt !== 'string') return prompt;
  if (tokenizer) return tokenizer.encode(prompt);
  throw new FlexplanError(
    'bad-input',
    `expected tokenizer.json in ${folderPath}, got none; give the prompt as --prompt-ids`,
  );
}

function sequenceOf(promptIds: readonly number[], index: number, options: GenerateOptions): Sequence {
  const { folder, maxTokens = DEFAULT_MAX_TOKENS, seed = 0 } = options;
  const fault = promptFault(folder.model, promptIds, maxTokens);
  if (fault) throw new FlexplanError('bad-input', `prompt ${index + 1}: ${fault}`);
  return {
    promptIds: Int32Array.from(promptIds),
    maxTokens,
    temperature: options.temperature ?? 0,
    topP: options.topP ?? 1,
    seed: seed + index,
    stopIds: Int32Array.from(options.ignoreEos ? [] : folder.model.eosTokenIds),
    logitsSteps: options.logitsSteps ?? 0,
    scorePrompt: false,
  };
}

/** What a sequence reserves. */
/** The job that these sequences are. */
export function workloadOf(sequences: readonly Sequence[]): Workload {
  const shared = sharedPromptTokens(sequences.map(({ promptIds }) => promptIds));
  return { ...workloadFromSequences(sequences.map(lengthOf)), ...(shared > 0 && { sharedPromptTokens: shared }) };
}

export function lengthOf({ promptIds, maxTokens }: Sequence): SequenceLength {
  return { promptTokens: promptIds.length, genTokens: Math.max(maxTokens, 1) };
}
