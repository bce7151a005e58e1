import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { sharedPromptTokens } from '../../src/workload/shared-prompt.js';

const ids = (count: number, first = 0) => Array.from({ length: count }, (_, t) => first + t);

describe('tokens that all prompts begin with', () => {
  it('are none of a single prompt, and none below what is worth a copy', () => {
    expect(sharedPromptTokens([])).toBe(0);
    expect(sharedPromptTokens([ids(40)])).toBe(0);
    expect(
      sharedPromptTokens([
        [...ids(15), 1],
        [...ids(15), 2],
      ]),
    ).toBe(0);
    expect(
      sharedPromptTokens([
        [...ids(16), 1],
        [...ids(16), 2],
      ]),
    ).toBe(16);
  });

  it('leave each prompt a token of its own', () => {
    expect(sharedPromptTokens([ids(40), ids(40)])).toBe(39);
    expect(sharedPromptTokens([ids(40), ids(30), ids(50)])).toBe(29);
  });

  it('are the same in any order', () => {
    const tail = fc.array(fc.nat(2), { minLength: 1, maxLength: 30 });
    fc.assert(
      fc.property(fc.array(tail, { minLength: 2, maxLength: 6 }), fc.nat(20), (tails, common) => {
        const prompts = tails.map((own) => [...ids(common), ...own]);
        const shared = sharedPromptTokens(prompts);
        expect(sharedPromptTokens(prompts.toReversed())).toBe(shared);
        for (const prompt of prompts) expect(prompt.slice(0, shared)).toEqual(prompts[0]!.slice(0, shared));
        expect(Math.min(...prompts.map(({ length }) => length))).toBeGreaterThan(shared);
      }),
    );
  });
});
