/** The sequences that benchmarks run: greedy, to their full length. */
import { greedySequence } from '../dist/engine/sequences.js';

/** So many prompts of one length, which differ. The first ids of a vocabulary are its special tokens. */
export function greedySequences(count, { promptTokens, genTokens, vocabSize }) {
  const idOf = (index, t) => 4 + ((7919 * index + 31 * t) % (vocabSize - 4));
  return Array.from({ length: count }, (_, index) =>
    greedySequence(
      Array.from({ length: promptTokens }, (_, t) => idOf(index, t)),
      genTokens,
    ),
  );
}
