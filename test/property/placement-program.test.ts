/** Laws of the program of one batch shape: it says what the estimate says, and its bounds hold. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { estimate } from '../../src/cost-model/estimate.js';
import { costTerms } from '../../src/cost-model/terms.js';
import type { BatchShape, CostTerms } from '../../src/cost-model/cost-terms.js';
import { evaluate, placementPoint } from '../../src/cost-model/affine.js';
import { capacityBytes, withCapacity } from '../../src/hardware/check-profile.js';
import type { HardwareProfile } from '../../src/hardware/hardware-profile.js';
import type { Policy } from '../../src/policy/policy.js';
import { buildProgram, placementDomain } from '../../src/solver/build-program.js';
import { certify } from '../../src/solver/certificate.js';
import { withLinkSpeed, withSpeed } from '../../src/solver/changed-hardware.js';
import { createGlpkSolver } from '../../src/solver/glpk.js';
import type { LinearSolution } from '../../src/solver/linear-program.js';
import { placementOf } from '../../src/solver/placements.js';
import { cannotFit, pricesOf, secondsBound, shortfallBound } from '../../src/solver/prices.js';
import { solveElastic } from '../../src/solver/elastic.js';
import { LINKS, TIERS } from '../../src/tiers.js';
import { anyFractions } from '../cost-model/arbitraries.js';
import { anyCase, type Case } from '../solver/machines.js';

const solver = createGlpkSolver();

const anyShape: fc.Arbitrary<BatchShape> = fc.record({
  gpuBatchSize: fc.integer({ min: 1, max: 12 }),
  numGpuBatches: fc.integer({ min: 1, max: 6 }),
  weightBits: fc.constantFrom(16, 4),
  kvCacheBits: fc.constantFrom(16, 4),
  quantGroupSize: fc.constant(64),
  overlap: fc.boolean(),
});

interface Solved {
  readonly terms: CostTerms;
  readonly solution: LinearSolution;
}

async function solve({ model, workload }: Case, hardware: HardwareProfile, shape: BatchShape): Promise<Solved> {
  const terms = costTerms(model, hardware, workload, shape);
  return { terms, solution: await solver.solve(buildProgram(terms, placementDomain(terms, hardware.device))) };
}

/** Runs a property over random jobs and checks that its condition was met often enough to mean something. */
async function forMany(
  numRuns: number,
  enough: number,
  check: (job: Case, shape: BatchShape, other: BatchShape) => Promise<boolean>,
): Promise<void> {
  let met = 0;
  await fc.assert(
    fc.asyncProperty(anyCase, anyShape, anyShape, async (job, shape, other) => {
      if (await check(job, shape, other)) met += 1;
    }),
    { numRuns },
  );
  expect(met).toBeGreaterThanOrEqual(enough);
}

describe('the program of a batch shape', () => {
  it('has the estimate of its solution as objective, and an optimum that can be proven', async () => {
    await forMany(150, 50, async ({ model, hardware, workload }, shape) => {
      const { terms, solution } = await solve({ model, hardware, workload }, hardware, shape);
      expect(solution.status).toMatch(/^(optimal|infeasible)$/);
      if (solution.status !== 'optimal') return false;
      const policy: Policy = { ...shape, ...placementOf(solution.values) };
      const { totalSeconds, fits, peakBytes } = estimate(model, hardware, workload, policy);
      expect(Math.abs(totalSeconds - solution.objective)).toBeLessThanOrEqual(1e-6 * solution.objective);
      for (const tier of TIERS) {
        expect(fits[tier] || peakBytes[tier] <= terms.capacityBytes[tier] * (1 + 1e-6)).toBe(true);
      }
      for (const { gpu, cpu, disk } of Object.values(policy.placement)) expect(gpu + cpu + disk).toBeCloseTo(1, 12);
      const program = buildProgram(terms, placementDomain(terms, hardware.device));
      expect(certify(program, solution).valid).toBe(true);
      return true;
    });
  });

  it('is never beaten by a placement that fits', async () => {
    let compared = 0;
    const share = fc.constantFrom(0, 0.3, 1);
    await fc.assert(
      fc.asyncProperty(
        anyCase,
        anyShape,
        fc.array(fc.record({ weights: anyFractions, kvCache: anyFractions, activations: anyFractions }), {
          minLength: 20,
          maxLength: 20,
        }),
        share,
        share,
        async ({ model, hardware, workload }, shape, placements, cpuAttentionFraction, diskKvCpuAttentionFraction) => {
          const { solution } = await solve({ model, hardware, workload }, hardware, shape);
          for (const placement of placements) {
            const policy = { ...shape, placement, cpuAttentionFraction, diskKvCpuAttentionFraction };
            const onGpu = Object.values(placement).some(({ gpu }) => gpu > 0);
            if (hardware.device === 'cpu' && onGpu) continue;
            const { fits, totalSeconds } = estimate(model, hardware, workload, policy);
            if (!(fits.gpu && fits.cpu && fits.disk)) continue;
            compared += 1;
            expect(solution.status).toBe('optimal');
            if (solution.status !== 'optimal') continue;
            expect(solution.objective).toBeLessThanOrEqual(totalSeconds * (1 + 1e-6));
          }
        },
      ),
      { numRuns: 80 },
    );
    expect(compared).toBeGreaterThanOrEqual(100);
  });

  it('is never slower with more of any capacity or a faster link', async () => {
    await forMany(60, 20, async (job, shape) => {
      const { hardware } = job;
      const { solution: before } = await solve(job, hardware, shape);
      if (before.status !== 'optimal') return false;
      const capacity = capacityBytes(hardware);
      const better = [
        ...TIERS.filter((tier) => capacity[tier] > 0).map((tier) =>
          withCapacity(hardware, { [tier]: 1.3 * capacity[tier] }),
        ),
        ...LINKS.filter((link) => hardware.links[link] && (hardware.device !== 'cpu' || link.includes('disk'))).map(
          (link) => withLinkSpeed(hardware, link, 1.7),
        ),
      ];
      for (const machine of better) {
        const { solution: after } = await solve(job, machine, shape);
        expect(after.status).toBe('optimal');
        if (after.status === 'optimal') expect(after.objective).toBeLessThanOrEqual(before.objective * (1 + 1e-7));
      }
      return true;
    });
  });

  it('takes a k-th of the time on a machine k times as fast', async () => {
    await forMany(60, 20, async (job, shape) => {
      const { solution: before } = await solve(job, job.hardware, shape);
      const { solution: after } = await solve(job, withSpeed(job.hardware, 8), shape);
      expect(after.status).toBe(before.status);
      if (after.status !== 'optimal' || before.status !== 'optimal') return false;
      expect(Math.abs(8 * after.objective - before.objective)).toBeLessThanOrEqual(1e-6 * before.objective);
      return true;
    });
  });
});

describe('bounds by prices', () => {
  it('never exceed the optimum, whatever shape the prices come from', async () => {
    let tight = 0;
    await forMany(150, 40, async (job, shape, other) => {
      const priced = await solve(job, job.hardware, other);
      const { terms, solution } = await solve(job, job.hardware, shape);
      if (priced.solution.status !== 'optimal' || solution.status !== 'optimal') return false;
      const domain = placementDomain(terms, job.hardware.device);
      const bound = secondsBound(terms, domain, pricesOf(priced.terms, priced.solution.rowDuals));
      expect(bound).toBeLessThanOrEqual(solution.objective * (1 + 1e-7));
      const own = secondsBound(terms, domain, pricesOf(terms, solution.rowDuals));
      expect(own).toBeGreaterThanOrEqual(solution.objective * (1 - 1e-6));
      if (bound > 0.8 * solution.objective) tight += 1;
      return true;
    });
    expect(tight).toBeGreaterThanOrEqual(20);
  });

  it('never call a shape infeasible that is not, and see most that are', async () => {
    let seen = 0;
    let infeasible = 0;
    await forMany(300, 30, async (job, shape, other) => {
      const { terms, solution } = await solve(job, job.hardware, shape);
      const domain = placementDomain(terms, job.hardware.device);
      const otherTerms = costTerms(job.model, job.hardware, job.workload, other);
      const elastic = await solveElastic(solver, otherTerms, placementDomain(otherTerms, job.hardware.device));
      const verdicts = [
        cannotFit(terms, domain),
        elastic !== undefined && shortfallBound(terms, domain, pricesOf(otherTerms, elastic.rowDuals)) > 1e-6,
      ];
      if (solution.status === 'infeasible') {
        infeasible += 1;
        if (verdicts.includes(true)) seen += 1;
      } else expect(verdicts).toEqual([false, false]);
      return solution.status === 'infeasible';
    });
    expect(seen / infeasible).toBeGreaterThan(0.8);
  });

  it('rest on memory that only grows with the batch shape', () => {
    fc.assert(
      fc.property(
        anyCase,
        anyShape,
        fc.record({ weights: anyFractions, kvCache: anyFractions, activations: anyFractions }),
        fc.boolean(),
        ({ model, hardware, workload }, shape, placement, moreBatches) => {
          const larger = moreBatches
            ? { ...shape, numGpuBatches: shape.numGpuBatches + 1 }
            : { ...shape, gpuBatchSize: shape.gpuBatchSize + 1 };
          const point = placementPoint({ ...shape, placement, cpuAttentionFraction: 0.5 });
          const [before, after] = [shape, larger].map((s) => costTerms(model, hardware, workload, s).peakBytes);
          for (const tier of TIERS) {
            const peak = (peaks: CostTerms['peakBytes']) => Math.max(...peaks[tier].map((b) => evaluate(b, point)));
            expect(peak(after!)).toBeGreaterThanOrEqual(peak(before!));
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});
