/** What every sequence must be before it crosses to the native engine. */
import { FlexplanError } from '../errors.js';
import type { ModelConfig } from '../models/model-config.js';
import type { NativeSequence } from './native-addon.js';

/** A greedy sequence that no end token stops. */
export function greedySequence(promptIds: Iterable<number>, maxTokens: number): NativeSequence {
  return {
    promptIds: Int32Array.from(promptIds),
    maxTokens,
    temperature: 0,
    topP: 1,
    seed: 0,
    stopIds: new Int32Array(),
    logitsSteps: 0,
    scorePrompt: false,
  };
}

/** Why a prompt cannot be run, as the rest of "expected ..., got ..., do ...", or undefined when it can. */
export function promptFault(model: ModelConfig, promptIds: ArrayLike<number>, maxTokens: number): string | undefined {
  const { vocabSize, maxPositions } = model;
  if (promptIds.length === 0) return 'expected a prompt of at least one token, got none; give it a text or token ids';
  for (let i = 0; i < promptIds.length; i++) {
    const id = promptIds[i]!;
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
      return `expected token ids from 0 to ${vocabSize - 1}, got ${id}; use the model's own tokenizer`;
    }
  }
  // The last token that is generated is never fed back, so it needs no position.
  const positions = promptIds.length + Math.max(maxTokens, 1) - 1;
  if (positions > maxPositions) {
    return `expected prompt and generated tokens to fit the model's ${maxPositions} positions, got ${promptIds.length} + ${maxTokens}; shorten the prompt or lower max_tokens`;
  }
  return undefined;
}

/** Throws `bad-input` or `usage` naming the first sequence that cannot be run. */
export function checkSequences(model: ModelConfig, sequences: readonly NativeSequence[]): void {
  if (sequences.length === 0) throw new FlexplanError('usage', 'expected at least one sequence to run, got none');
  sequences.forEach((sequence, index) => {
    const fault = promptFault(model, sequence.promptIds, sequence.maxTokens) ?? samplingFault(sequence);
    if (fault) throw new FlexplanError('bad-input', `sequence ${index}: ${fault}`);
  });
}

function samplingFault({ maxTokens, temperature, topP }: NativeSequence): string | undefined {
  if (!Number.isSafeInteger(maxTokens) || maxTokens < 0) {
    return `expected maxTokens to be a whole number of at least 0, got ${maxTokens}`;
  }
  if (!(temperature >= 0 && Number.isFinite(temperature)))
    return `expected a temperature of at least 0, got ${temperature}`;
  if (!(topP > 0 && topP <= 1)) return `expected top_p above 0 and at most 1, got ${topP}`;
  return undefined;
}
