/** Any mix of what the families allow, against the slow transformer: what no published fixture happens to combine. */
import { join } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { openModelFolder } from '../../src/engine/model-folder.js';
import { MODEL_FAMILIES } from '../../src/models/config-reader.js';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { describeNative, greedy, runOnce } from './native.js';
import { randomModel, writeModel } from './random-model.js';
import { slowLogits } from './slow-transformer.js';
import { temporaryFolder } from './temporary-folder.js';

const STEPS = 3;
/** Of the largest logit: single against double precision. */
const TOLERANCE = 1e-4;
const folder = join(temporaryFolder(), 'model');
const largest = (values: ArrayLike<number>) => Math.max(...Array.from(values, Math.abs));

describeNative('models at random compute what the slow transformer computes', () => {
  // Two scores that are all but equal may change places in single precision: the models of sparse attention are always
  // the same.
  const cases = MODEL_FAMILIES.flatMap((family) => [
    { family, fraction: 1, settings: { numRuns: 10 } },
    { family, fraction: 0.3, settings: { numRuns: 4, seed: 1 } },
  ]);
  test.each(cases)('$family, V of $fraction of the positions', async ({ family, fraction, settings }) => {
    const policy = { ...everythingInMemory('cpu', 1), sparseValueFraction: fraction };
    const prompts = fc.array(fc.nat(19), { minLength: 1, maxLength: 14 });
    await fc.assert(
      fc.asyncProperty(randomModel(family), prompts, async (random, prompt) => {
        const { model, weights } = writeModel(folder, random);
        const sequences = [greedy(prompt, STEPS, { logitsSteps: STEPS })];
        const { result } = await runOnce(await openModelFolder(folder), sequences, { policy });
        const { tokenIds, logits } = result.sequences[0]!;
        const ids = [...prompt];
        for (let step = 0; step < STEPS; step++) {
          const expected = slowLogits(model, weights, ids, fraction);
          const error = largest(expected.map((value, i) => value - logits[step]![i]!)) / largest(expected);
          expect(error).toBeLessThan(TOLERANCE);
          ids.push(tokenIds[step]!);
        }
      }),
      settings,
    );
  });
});
