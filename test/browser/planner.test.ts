/** Planning in a browser: bundled as for a page, run without anything of Node, with glpk.js's build for browsers. */
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Plan } from '../../src/solver/plan.js';
import type { PlanResult } from '../../src/solver/optimize.js';
import { bundleForBrowsers, openPage } from './browser.js';
import * as node from './planner-page.js';

let script: string;
let page: typeof node;
beforeAll(async () => {
  script = await bundleForBrowsers(new URL('planner-page.ts', import.meta.url));
  page = openPage<typeof node>(script);
}, 60_000);

const t4: unknown = JSON.parse(readFileSync('hardware-profiles/t4.json', 'utf8'));

async function planWith(planner: typeof node): Promise<Plan> {
  const hardware = planner.checkHardwareProfile(t4);
  const workload = planner.workloadFromNumbers(512, 32, 500);
  const result = await planner.optimize(planner.findModel('facebook/opt-30b'), hardware, workload, {
    kvCacheBits: 'auto',
  });
  return (result as PlanResult).plan;
}

/** Realms have their own classes: what is compared is data. */
const dataOf = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

describe('in a browser', () => {
  it('nothing of Node is bundled', () => {
    expect(script).not.toMatch(/\bfrom\s*['"]node:|\brequire\(\s*['"]node:|import\(\s*['"](node:|module)/);
    expect(script).not.toContain('glpk.js/node');
    expect(script).toContain('new Worker');
  });

  it('the plan is the one that Node makes', async () => {
    const [inBrowser, inNode] = [await planWith(page), await planWith(node)];
    const { search: itsSearch, ...itsPlan } = inBrowser;
    const { search, ...plan } = inNode;
    expect(dataOf(itsPlan)).toEqual(dataOf(plan));
    expect({ ...itsSearch, seconds: 0, solvingSeconds: 0 }).toEqual({ ...search, seconds: 0, solvingSeconds: 0 });
    expect(dataOf(page.explain(inBrowser))).toEqual(node.explain(inNode));
    expect(dataOf(page.checkPlan(dataOf(inBrowser)))).toEqual(dataOf(inBrowser));
  }, 60_000);

  it('documents are refused with the same words', () => {
    const broken = { ...(t4 as object), name: 7 };
    const refusal = (planner: typeof node): string => {
      try {
        planner.checkHardwareProfile(broken);
      } catch (error) {
        return (error as Error).message;
      }
      return 'accepted';
    };
    expect(refusal(page)).toContain('"name"');
    expect(refusal(page)).toBe(refusal(node));
  });
});
