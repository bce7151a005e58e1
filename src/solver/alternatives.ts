/** What else could be done: the search's runners-up, and the same job under the policies of other systems. */
import type { FoundPolicy } from './search.js';
import type { Alternative } from './plan.js';

const MOST_RUNNERS_UP = 3;

function runnerUp({ policy, estimate }: FoundPolicy): Alternative {
  const { genTokensPerSecond, totalSeconds } = estimate;
  return { name: 'runner-up', policy, genTokensPerSecond, totalSeconds, fits: true };
}

/** `found`: best first, the plan itself at the front. `baselines`: the same job under other systems' policies. */
export function alternativesTo(found: readonly FoundPolicy[], baselines: readonly Alternative[]): Alternative[] {
  return [...found.slice(1, 1 + MOST_RUNNERS_UP).map(runnerUp), ...baselines];
}
