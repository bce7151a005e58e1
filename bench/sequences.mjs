/** The sequences that benchmarks run: greedy, to their full length. */

export function greedySequence(promptIds, maxTokens) {
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
