/** Plans and policies from files. */
import { FlexplanError } from '../errors.js';
import type { Policy } from '../policy/policy.js';
import type { PlanResult } from '../solver/optimize.js';
import { checked, readJson } from './files.js';

export async function loadPolicy(path: string): Promise<Policy> {
  const { checkPolicy } = await import('../policy/check-policy.js');
  const document = readJson(path, 'a policy') as { policy?: unknown } | null;
  // A plan holds a policy, and what a person has at hand is a plan.
  return checked(path, () => checkPolicy(document?.policy ?? document));
}

/** `--policy` or `--plan`, not both; undefined when neither was given. */
export async function chosenPolicy(given: {
  readonly policy?: string | undefined;
  readonly plan?: string | undefined;
}): Promise<Policy | undefined> {
  if (given.policy !== undefined && given.plan !== undefined)
    throw new FlexplanError('usage', 'expected --policy or --plan, got both; leave one out');
  const path = given.policy ?? given.plan;
  return path === undefined ? undefined : loadPolicy(path);
}

/** `--sparse-values` in place of what the policy says. */
export function withSparseValues(policy: Policy, fraction: number | undefined): Policy {
  return fraction === undefined ? policy : { ...policy, sparseValueFraction: fraction };
}

/** A plan, in the form that planning gives it. */
export async function loadPlan(path: string): Promise<PlanResult> {
  const { checkPlan } = await import('../solver/check-plan.js');
  const document = readJson(path, 'a plan');
  return { status: 'optimal', plan: checked(path, () => checkPlan(document)) };
}
