import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { costTerms } from '../../src/cost-model/terms.js';
import { checkHardwareProfile, withCapacity } from '../../src/hardware/check-profile.js';
import { findModel } from '../../src/models/registry.js';
import { blockSize } from '../../src/policy/policy.js';
import { buildProgram, placementDomain } from '../../src/solver/build-program.js';
import { withLinkSpeed } from '../../src/solver/changed-hardware.js';
import { checkPlan } from '../../src/solver/check-plan.js';
import { explain } from '../../src/solver/explain.js';
import { createGlpkSolver } from '../../src/solver/glpk.js';
import { optimize } from '../../src/solver/optimize.js';
import type { OptimizeOptions } from '../../src/solver/options.js';
import { pareto } from '../../src/solver/pareto.js';
import type { Plan } from '../../src/solver/plan.js';
import { GIB } from '../../src/units.js';
import { workloadFromNumbers } from '../../src/workload/blocks.js';
import { machine, optLike, smallJob, smallMachine } from './machines.js';

const solver = createGlpkSolver();
const surroundings = { solver };

async function smallPlan(options: Partial<OptimizeOptions> = {}): Promise<Plan> {
  const result = await optimize(optLike, smallMachine, smallJob, options, surroundings);
  if (result.status !== 'optimal') throw new Error(`expected a plan, got ${JSON.stringify(result)}`);
  return result.plan;
}

const small = await smallPlan();

describe('a plan for a small machine', () => {
  it('uses what the machine has and fits it', () => {
    const { placement } = small.realised;
    expect(placement.weights.gpu).toBeGreaterThan(0);
    expect(placement.weights.gpu).toBeLessThan(1);
    expect(small.estimate.fits).toEqual({ gpu: true, cpu: true, disk: true });
    expect(small.hardware.capacityBytes).toEqual({ gpu: 4e6, cpu: 6e6, disk: 1e9 });
    expect(small.workload).toEqual({ promptTokens: 24, genTokens: 8, numSequences: 40 });
  });

  it('reports the job: blocks, hours, a band of nothing without spreads', () => {
    const { job, policy, estimate } = small;
    expect(job.numSequences).toBe(40);
    expect(job.numBlocks).toBe(Math.ceil(40 / blockSize(policy)));
    expect(job.hours * 3600).toBeCloseTo(estimate.totalSeconds, 9);
    expect(job.hoursRange[0]).toBeCloseTo(job.hours, 12);
    expect(job.hoursRange[1]).toBeCloseTo(job.hours, 12);
  });

  it('sets its weight loads against the least of any schedule', () => {
    const { weightIo, policy } = small;
    const numBlocks = Math.ceil(40 / blockSize(policy));
    expect(weightIo.weightLoads).toBe(numBlocks * optLike.numLayers * 8);
    expect(weightIo.leastWeightLoads).toBeGreaterThanOrEqual(optLike.numLayers * 8);
    expect(weightIo.ratio).toBeCloseTo(weightIo.weightLoads / weightIo.leastWeightLoads, 12);
    expect(weightIo.ratio).toBeGreaterThanOrEqual(1);
  });

  it('gives a band around the hours when the rates have spreads', async () => {
    const uncertain = { ...smallMachine, taskSeconds: { ...smallMachine.taskSeconds, spread: 0.5 } };
    const result = await optimize(optLike, uncertain, smallJob, {}, surroundings);
    expect(result.status).toBe('optimal');
    if (result.status !== 'optimal') return;
    const { hours, hoursRange } = result.plan.job;
    expect(hoursRange[0]).toBeLessThan(hours);
    expect(hoursRange[1]).toBeGreaterThan(hours);
  });

  it('is the same every time', async () => {
    const { search: first, ...rest } = small;
    const { search: second, ...again } = await smallPlan();
    expect(again).toEqual(rest);
    expect({ ...second, seconds: 0, solvingSeconds: 0 }).toEqual({ ...first, seconds: 0, solvingSeconds: 0 });
  });

  it('keeps to a fixed batch shape and fixed bit widths', async () => {
    const { policy } = await smallPlan({ gpuBatchSize: 3, numGpuBatches: 2, weightBits: 4, kvCacheBits: 4 });
    expect(policy).toMatchObject({ gpuBatchSize: 3, numGpuBatches: 2, weightBits: 4, kvCacheBits: 4, overlap: true });
    expect((await smallPlan({ overlap: false })).policy.overlap).toBe(false);
  });

  it('is at least as fast when the bit widths are open', async () => {
    const open = await smallPlan({ weightBits: 'auto', kvCacheBits: 'auto' });
    expect(open.estimate.genTokensPerSecond).toBeGreaterThanOrEqual(small.estimate.genTokensPerSecond);
  });

  it('takes no more than the caps', async () => {
    const { estimate, hardware } = await smallPlan({ gpuMemoryBytes: 3.7e6, cpuMemoryBytes: 5e6 });
    expect(hardware.capacityBytes).toEqual({ gpu: 3.7e6, cpu: 5e6, disk: 1e9 });
    expect(estimate.peakBytes.gpu).toBeLessThanOrEqual(3.7e6);
    expect(estimate.peakBytes.cpu).toBeLessThanOrEqual(5e6);
  });

  it('lists the runners-up, none of them better', () => {
    const runnersUp = small.alternatives.filter(({ name }) => name === 'runner-up');
    expect(runnersUp.length).toBeGreaterThan(0);
    for (const { genTokensPerSecond } of runnersUp) {
      expect(genTokensPerSecond).toBeLessThanOrEqual(small.estimate.genTokensPerSecond);
    }
  });
});

describe('options', () => {
  it.each([
    [{ wieghtBits: 4 }, /got "wieghtBits"/],
    [{ weightBits: 8 }, /weightBits to be 16, 4 or "auto", got 8/],
    [{ gpuBatchSize: 0 }, /gpuBatchSize to be a whole number of at least 1 or "auto", got 0/],
    [{ numGpuBatches: 1.5 }, /numGpuBatches/],
    [{ maxLatencySeconds: -1 }, /maxLatencySeconds to be a positive number/],
    [{ cpuMemoryBytes: NaN }, /cpuMemoryBytes to be a number of bytes, got NaN/],
    [{ overlap: 'yes' }, /overlap to be true or false, got yes/],
  ])('refuses %o', async (options, message) => {
    const planning = optimize(optLike, smallMachine, smallJob, options as Partial<OptimizeOptions>, surroundings);
    await expect(planning).rejects.toThrow(message);
    await expect(planning).rejects.toMatchObject({ code: 'usage' });
  });

  it('takes undefined as not given', async () => {
    const given = { weightBits: undefined, gpuBatchSize: undefined } as unknown as Partial<OptimizeOptions>;
    expect((await smallPlan(given)).policy).toEqual(small.policy);
  });
});

describe('an infeasible job', () => {
  it('says what is missing, and plans once it is there', async () => {
    const tiny = withCapacity(smallMachine, { cpu: 1e6, disk: 0 });
    const result = await optimize(optLike, tiny, smallJob, {}, surroundings);
    expect(result).toMatchObject({ status: 'infeasible', shortfall: [{ tier: 'cpu' }] });
    if (result.status !== 'infeasible') return;
    const { missingBytes } = result.shortfall[0]!;
    const enough = withCapacity(tiny, { cpu: 1e6 + 1.05 * missingBytes });
    const tooLittle = withCapacity(tiny, { cpu: 1e6 + 0.95 * missingBytes });
    expect((await optimize(optLike, enough, smallJob, {}, surroundings)).status).toBe('optimal');
    expect((await optimize(optLike, tooLittle, smallJob, {}, surroundings)).status).toBe('infeasible');
    expect(result.remedies).toEqual(expect.arrayContaining([expect.stringMatching(/RAM.*--cpu-memory/)]));
  });

  it('names the GPU when it is the GPU, and offers an open batch size when the given one is too large', async () => {
    const result = await optimize(optLike, smallMachine, smallJob, { gpuBatchSize: 40 }, surroundings);
    if (result.status !== 'infeasible') throw new Error('expected no plan');
    expect(result.shortfall[0]).toMatchObject({ tier: 'gpu' });
    expect(result.changes[0]).toEqual({ options: { gpuBatchSize: 'auto' } });
    expect(result.remedies[0]).toMatch(/--gpu-batch-size/);
  });
});

describe('sensitivity', () => {
  it('is sorted, never negative, and agrees with planning anew', async () => {
    const gains = small.sensitivity.map((s) => s.genTokensPerSecondDelta);
    expect(gains).toEqual([...gains].sort((a, b) => b - a));
    expect(Math.min(...gains)).toBeGreaterThanOrEqual(0);
    expect(small.sensitivity.map((s) => s.resource).sort()).toEqual(
      ['gpuCapacity', 'cpuCapacity', 'diskCapacity', 'cpuToGpu', 'gpuToCpu', 'diskToCpu', 'cpuToDisk'].sort(),
    );
    for (const link of ['cpuToGpu', 'diskToCpu'] as const) {
      const { genTokensPerSecondDelta } = small.sensitivity.find((s) => s.resource === link)!;
      const faster = await optimize(optLike, withLinkSpeed(smallMachine, link, 2), smallJob, {}, surroundings);
      if (faster.status !== 'optimal') throw new Error('expected a plan on the faster machine');
      const gain = faster.plan.search.relaxedGenTokensPerSecond - small.search.relaxedGenTokensPerSecond;
      expect(genTokensPerSecondDelta).toBeLessThanOrEqual(Math.max(0, gain) + 0.01 * small.estimate.genTokensPerSecond);
    }
  });

  it('starts from the duals: a small change of one capacity moves the optimum as they say', async () => {
    const { gpuBatchSize, numGpuBatches, weightBits, kvCacheBits, quantGroupSize, overlap } = small.policy;
    const shape = { gpuBatchSize, numGpuBatches, weightBits, kvCacheBits, quantGroupSize, overlap };
    const secondsWith = async (gpu: number): Promise<number> => {
      const terms = costTerms(optLike, withCapacity(smallMachine, { gpu }), smallJob, shape);
      const solution = await solver.solve(buildProgram(terms, placementDomain(terms, 'cuda')));
      if (solution.status !== 'optimal') throw new Error('expected an optimum');
      return solution.objective;
    };
    const before = await secondsWith(4e6);
    const perByte = ((await secondsWith(4e6 + 100)) - before) / 100;
    const { firstOrderDelta } = small.sensitivity.find((s) => s.resource === 'gpuCapacity')!;
    const promised = (-perByte * 8 * GIB * (40 * 8)) / before ** 2;
    expect(promised).toBeGreaterThan(0);
    expect(firstOrderDelta / promised).toBeCloseTo(1, 2);
  });
});

describe('the trade between latency and throughput', () => {
  it('has no point that is slower and less productive than another', async () => {
    const points = await pareto(optLike, smallMachine, smallJob, { gpuBatchSize: 1 }, surroundings);
    expect(points.length).toBeGreaterThanOrEqual(3);
    points.slice(1).forEach((point, i) => {
      expect(point.latencySeconds).toBeLessThan(points[i]!.latencySeconds);
      expect(point.genTokensPerSecond).toBeLessThan(points[i]!.genTokensPerSecond);
    });
  });
});

describe('the plan document', () => {
  const document = JSON.parse(JSON.stringify(small)) as Record<string, unknown>;

  it.each([
    ['a missing field', { policy: undefined }, /"policy"/],
    ['a wrong version', { schemaVersion: 2 }, /"schemaVersion" of the plan to be 1, got 2/],
    ['an unknown field', { speed: 1 }, /"speed"/],
    ['a field of the policy', { policy: { ...small.policy, weightBits: 8 } }, /"policy.weightBits"/],
    ['fractions that do not sum to 1', { policy: withWeights({ gpu: 0.5, cpu: 0, disk: 0 }) }, /placement.weights/],
    ['a negative time', { estimate: { ...small.estimate, totalSeconds: -1 } }, /"estimate.totalSeconds"/],
    ['a broken profile', { hardware: { ...small.hardware, profile: {} } }, /hardware profile/],
  ])('is refused for %s', (_, change, message) => {
    const changed: unknown = JSON.parse(JSON.stringify({ ...document, ...change }));
    expect(() => checkPlan(changed)).toThrow(message);
  });

  function withWeights(weights: Plan['policy']['placement']['weights']): Plan['policy'] {
    return { ...small.policy, placement: { ...small.policy.placement, weights } };
  }
});

describe('the explanation', () => {
  it('says what binds, what it does and what would change it, in whole sentences', () => {
    const sections = explain(small);
    expect(sections.map(({ heading }) => heading)).toEqual([
      'What it does',
      'What binds',
      'What would bring more',
      'Why believe it',
    ]);
    const sentences = sections.flatMap((section) => section.sentences);
    for (const sentence of sentences) expect(sentence).toMatch(/^[A-Z0-9].*\.$/);
    expect(sentences.join(' ')).not.toMatch(/NaN|undefined|Infinity/);
    expect(sentences.filter((s) => /is bound by/.test(s))).toHaveLength(2);
  });

  it('does not speak of a GPU on a machine without one', async () => {
    const numbers = { gpuBytes: 0, cpuBytes: 1e7, diskBytes: 1e9, cpuToGpu: 1, gpuToCpu: 1, diskToCpu: 2e8 };
    const rates = { cpuToDisk: 1e8, gpuFlopsPerSecond: 1, cpuFlopsPerSecond: 2e10 };
    const result = await optimize(
      optLike,
      machine({ device: 'cpu', ...numbers, ...rates }),
      smallJob,
      {},
      surroundings,
    );
    if (result.status !== 'optimal') throw new Error('expected a plan');
    expect(result.plan.realised.placement.weights.gpu).toBe(0);
    const sentences = explain(result.plan).flatMap((section) => section.sentences);
    expect(sentences.filter((s) => /GPU memory|RAM to the GPU/.test(s))).toEqual([]);
  });
});

describe('OPT-175B on a T4', () => {
  const t4 = checkHardwareProfile(JSON.parse(readFileSync('hardware-profiles/t4.json', 'utf8')));
  const model = findModel('facebook/opt-175b');
  const workload = workloadFromNumbers(512, 32);

  it('gets a plan with a real batch, more tokens than other systems make, and few programs to solve', async () => {
    const result = await optimize(model, t4, workload, { weightBits: 'auto', kvCacheBits: 'auto' }, surroundings);
    if (result.status !== 'optimal') throw new Error('expected a plan');
    const { policy, estimate, search, alternatives } = result.plan;
    expect(policy.gpuBatchSize).toBeGreaterThanOrEqual(2);
    expect(blockSize(policy)).toBeGreaterThanOrEqual(64);
    expect(search.programsSolved).toBeLessThanOrEqual(150);
    expect(search.roundingLossFraction).toBeLessThan(0.01);
    expect(search.roundingLossFraction).toBeGreaterThan(-0.005);
    for (const { genTokensPerSecond } of alternatives) {
      expect(genTokensPerSecond).toBeLessThanOrEqual(estimate.genTokensPerSecond);
    }
  });
});
