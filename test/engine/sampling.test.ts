/** Sampled tokens against the distribution that the logits of the very same step define. */
import { expect, test } from 'vitest';
import type { Sequence } from '../../src/engine/engine.js';
import { describeNative, fixtureFolder, greedy, runOnce } from './native.js';
import { everythingInMemory } from '../../src/engine/default-policy.js';

const DRAWS = 2000;

/** Probability of each token: softmax(logits / temperature), cut to the smallest set of at least topP, renormalised. */
function distribution(logits: Float32Array, temperature: number, topP: number): number[] {
  const most = Math.max(...logits);
  const weights = Array.from(logits, (logit) => Math.exp((logit - most) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const order = weights.map((_, id) => id).sort((a, b) => weights[b]! - weights[a]!);
  const kept: number[] = [];
  let mass = 0;
  for (const id of order) {
    kept.push(id);
    mass += weights[id]! / total;
    if (mass >= topP) break;
  }
  return weights.map((weight, id) => (kept.includes(id) ? weight / total / mass : 0));
}

async function draw(changes: Partial<Sequence>): Promise<{ counts: number[]; logits: Float32Array }> {
  const sequences = Array.from({ length: DRAWS }, (_, seed) =>
    greedy([2, 5, 7], 1, { seed, logitsSteps: seed === 0 ? 1 : 0, ...changes }),
  );
  const policy = everythingInMemory('cpu', 32);
  const { result } = await runOnce(await fixtureFolder('qwen2-tiny-fp32'), sequences, { policy });
  const counts = new Array<number>(512).fill(0);
  for (const { tokenIds } of result.sequences) counts[tokenIds[0]!]!++;
  return { counts, logits: result.sequences[0]!.logits[0]! };
}

describeNative('sampling', () => {
  test.each([
    [1, 1],
    [0.5, 1],
    [1, 0.5],
    [0.7, 0.9],
  ])('temperature %d, top_p %d', async (temperature, topP) => {
    const { counts, logits } = await draw({ temperature, topP });
    const probabilities = distribution(logits, temperature, topP);
    // Pearson's statistic over the tokens that are expected 5 times, the rest together as one.
    let statistic = 0;
    let degrees = 0;
    let rest = { expected: 0, seen: 0 };
    probabilities.forEach((p, id) => {
      const expected = p * DRAWS;
      if (expected === 0) expect(counts[id]).toBe(0);
      else if (expected < 5) rest = { expected: rest.expected + expected, seen: rest.seen + counts[id]! };
      else {
        statistic += (counts[id]! - expected) ** 2 / expected;
        degrees++;
      }
    });
    if (rest.expected > 0) statistic += (rest.seen - rest.expected) ** 2 / rest.expected;
    expect(degrees).toBeGreaterThanOrEqual(3);
    // Mean `degrees`, variance 2 x that: five standard deviations.
    expect(statistic).toBeLessThan(degrees + 5 * Math.sqrt(2 * degrees));
  });

  test('every seed draws its own', async () => {
    const { counts } = await draw({ temperature: 1 });
    expect(counts.filter((count) => count > 0).length).toBeGreaterThan(20);
    const same = await draw({ temperature: 1, seed: 7 });
    expect(Math.max(...same.counts)).toBe(DRAWS);
  });
});
