/** When nothing fits: the placement that misses the cheapest bytes, and which tier misses them. */
import type { CostTerms } from '../cost-model/cost-terms.js';
import { TIERS, type Tier } from '../tiers.js';
import { domainRows, memoryRows, memoryRowTier, placementVariables } from './build-program.js';
import type { LinearSolver, OptimalSolution } from './linear-program.js';
import type { PlacementDomain } from './placements.js';

const missingVariable = (tier: Tier): string => `missing.${tier}`;

/** A byte may be missing on several tiers alike: it is the cheaper one that is short of it. */
const WEIGHT: Readonly<Record<Tier, number>> = { disk: 1, cpu: 2, gpu: 16 };

export interface ElasticSolution {
  readonly missingBytes: Readonly<Record<Tier, number>>;
  readonly rowDuals: OptimalSolution['rowDuals'];
}

/**
 * The cheapest bytes that `elasticTiers` must grow by, together, for some placement to fit. Undefined when their growth
 * does not help.
 */
export async function solveElastic(
  solver: LinearSolver,
  terms: CostTerms,
  domain: PlacementDomain,
  elasticTiers: readonly Tier[] = domain.tiers,
): Promise<ElasticSolution | undefined> {
  const solution = await solver.solve({
    name: 'shortfall',
    objectiveConstant: 0,
    variables: [
      ...placementVariables(domain),
      ...elasticTiers.map((tier) => ({ name: missingVariable(tier), lower: 0, upper: Infinity, cost: WEIGHT[tier] })),
    ],
    rows: [
      ...domainRows(),
      ...memoryRows(terms, domain).map((row) => {
        const tier = memoryRowTier(row.name);
        if (!tier || !elasticTiers.includes(tier)) return row;
        return { ...row, terms: [...row.terms, { variable: missingVariable(tier), coefficient: -1 }] };
      }),
    ],
  });
  if (solution.status !== 'optimal') return undefined;
  const missing = (tier: Tier): number => solution.values[missingVariable(tier)] ?? 0;
  const [gpu, cpu, disk] = TIERS.map(missing) as [number, number, number];
  return { missingBytes: { gpu, cpu, disk }, rowDuals: solution.rowDuals };
}
