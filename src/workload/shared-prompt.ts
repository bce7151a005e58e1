/**
 * What all prompts of a job begin with: in each block the first computes it, the others take its KV rows
 * (docs/schedule.md).
 */
/** The engine shares no fewer tokens. */
const LEAST_SHARED_TOKENS = 16;

/** Tokens that all prompts begin with; of a prompt the last one is always computed. 0: too few to share. */
export function sharedPromptTokens(prompts: readonly ArrayLike<number>[]): number {
  const [first, ...others] = prompts;
  if (!first || others.length === 0) return 0;
  let shared = first.length - 1;
  for (const prompt of others) {
    shared = Math.min(shared, prompt.length - 1);
    for (let t = 0; t < shared; t++) if (prompt[t] !== first[t]) shared = t;
  }
  return shared < LEAST_SHARED_TOKENS ? 0 : shared;
}
