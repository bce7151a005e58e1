/** What else could be done: the search's runners-up, and the same job under the policies of other systems. */
import type { Baseline } from '../cost-model/baselines/index.js';
import type { Estimate } from '../cost-model/estimate-types.js';
import type { Policy } from '../policy/policy.js';
import type { Alternative } from './plan.js';

const MOST_RUNNERS_UP = 3;

interface Estimated {
  readonly policy: Policy;
  readonly estimate: Estimate;
}

function alternative(name: string, { policy, estimate }: Estimated): Alternative {
  const { genTokensPerSecond, totalSeconds, fits } = estimate;
  return { name, policy, genTokensPerSecond, totalSeconds, fits: fits.gpu && fits.cpu && fits.disk };
}

/** `found`: best first, the plan itself at the front. */
export function alternativesTo(found: readonly Estimated[], baselines: readonly Baseline[]): Alternative[] {
  return [
    ...found.slice(1, 1 + MOST_RUNNERS_UP).map((policy) => alternative('runner-up', policy)),
    ...baselines.map((baseline) => alternative(baseline.system, baseline)),
  ];
}
