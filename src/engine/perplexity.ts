/** How well a model predicts a text, under any policy: what storage in 4 bits costs in quality. */
import { FlexplanError } from '../errors.js';
import { workloadFromSequences } from '../workload/blocks.js';
import { Engine, type EngineOptions, type Sequence } from './engine.js';
import { lengthOf } from './generate.js';

/**
 * Perplexity of a text's token ids: exp of the mean negative log-probability of a token given those before it in its
 * window. Windows of `predictedTokens + 1` ids start every `predictedTokens` ids, so every id but the first is
 * predicted once; ids that do not fill a last window are left out.
 * @throws FlexplanError `bad-input` if the ids do not fill one window, and what the engine throws.
 */
export async function perplexity(
  options: Omit<EngineOptions, 'workload'>,
  tokenIds: readonly number[],
  predictedTokens: number,
): Promise<number> {
  const sequences = scoringWindows(tokenIds, predictedTokens);
  const engine = await Engine.open({ ...options, workload: workloadFromSequences(sequences.map(lengthOf)) });
  try {
    const { sequences: results } = await engine.run(sequences);
    const logProbs = results.flatMap(({ promptLogProbs }) => [...promptLogProbs!]);
    return Math.exp(-logProbs.reduce((sum, value) => sum + value, 0) / logProbs.length);
  } finally {
    await engine.close();
  }
}

function scoringWindows(tokenIds: readonly number[], predictedTokens: number): Sequence[] {
  if (tokenIds.length <= predictedTokens) {
    throw new FlexplanError(
      'bad-input',
      `expected more than ${predictedTokens} token ids to score, got ${tokenIds.length}; give a longer text or shorter windows`,
    );
  }
  const count = Math.floor((tokenIds.length - 1) / predictedTokens);
  return Array.from({ length: count }, (_, i) => ({
    promptIds: Int32Array.from(tokenIds.slice(i * predictedTokens, (i + 1) * predictedTokens + 1)),
    maxTokens: 0,
    temperature: 0,
    topP: 1,
    seed: 0,
    stopIds: new Int32Array(0),
    logitsSteps: 0,
    scorePrompt: true,
  }));
}
