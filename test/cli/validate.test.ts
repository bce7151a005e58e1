import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ValidationDocument } from '../../src/cli/validation-document.js';
import { validationPolicies } from '../../src/cli/validation-policies.js';
import { comparedRow, quantityAt } from '../../src/cost-model/calibration.js';
import { estimate } from '../../src/cost-model/estimate.js';
import { checkHardwareProfile, withCapacity } from '../../src/hardware/check-profile.js';
import { findModel } from '../../src/models/registry.js';
import { checkRunDocument } from '../../src/report/run-document.js';
import { workloadFromNumbers, workloadFromSequences } from '../../src/workload/blocks.js';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { documentOf, flexplan, ROOT } from './cli.js';
import { emulatedProfile } from './sample-profile.js';

const MODEL = join(ROOT, 'examples/opt-kjv-5m');
const GPU_BYTES = 20 * 2 ** 20;
const LINK_RATE = 200e6;
const JOB = ['--prompt-tokens', '6', '--gen-tokens', '3', '--num-sequences', '8'];

describe('validate', () => {
  const machine = emulatedProfile(GPU_BYTES, LINK_RATE);
  let folder: string;
  let document: ValidationDocument;
  const at = (name: string) => join(folder, name);

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'flexplan-test-'));
    writeFileSync(at('machine.json'), JSON.stringify(machine));
    const files = ['--out', at('validation'), '--calibrate', at('fitted.json')];
    const job = ['--model', MODEL, '--hw', at('machine.json'), '--policies', '4', ...JOB];
    const outcome = await flexplan('validate', ...job, ...files, '--json');
    expect(outcome.stderr).toContain('Running planned (1 of 4)');
    expect(outcome.code).toBe(0);
    document = documentOf(outcome) as unknown as ValidationDocument;
  });

  afterAll(() => rmSync(folder, { recursive: true }));

  it('runs the plan and other policies, each to its full length', () => {
    expect(document.runs.map(({ name }) => name)).toEqual(['planned', 'all-on-gpu', 'weights-in-ram', 'kv-moved']);
    for (const { run } of document.runs) expect(run).toMatchObject({ device: 'emulated', genTokens: 24 });
    expect(document.runs[1]!.run.trafficBytes.decode.cpuToGpu).toBe(0);
    expect(document.runs[2]!.run.trafficBytes.decode.cpuToGpu).toBeGreaterThan(1e6);
  });

  it('sums up how far the prediction was off', () => {
    const errors = document.runs.map(({ run }) =>
      Math.abs(run.predicted.genTokensPerSecond / run.genTokensPerSecond - 1),
    );
    const sorted = errors.sort((a, b) => a - b);
    expect(document.error.worst).toBeCloseTo(sorted[3]!, 9);
    expect(document.error.median).toBeCloseTo((sorted[1]! + sorted[2]!) / 2, 9);
  });

  it('stores runs that the report reads, and the report itself', () => {
    const stored = (name: string): unknown => JSON.parse(readFileSync(at(`validation/${name}`), 'utf8'));
    expect(stored('validation.json')).toEqual(document);
    for (const { name, run } of document.runs)
      expect(checkRunDocument(stored(`results/${name}.json`))).toEqual(JSON.parse(JSON.stringify(run)));
    expect(existsSync(at('validation/index.html'))).toBe(true);
  });

  it('fits a profile that predicts these runs better', () => {
    const fitted = checkHardwareProfile(JSON.parse(readFileSync(at('fitted.json'), 'utf8')));
    expect(quantityAt(fitted, 'compute.cpu.launchSeconds').source).toBe('fitted');
    const workload = workloadFromSequences(Array.from({ length: 8 }, () => ({ promptTokens: 6, genTokens: 3 })));
    const misses = (hardware: typeof machine) =>
      document.runs.flatMap(({ name, run }) =>
        (['prefillSeconds', 'decodeSeconds'] as const).map((quantity) => {
          const { policy, model } = run.plan as typeof run.plan & { model: Parameters<typeof estimate>[0] };
          const row = { name, model, workload, policy, quantity, value: run[quantity], resolution: 0 };
          return Math.log1p(comparedRow(hardware, row).error) ** 2;
        }),
      );
    const total = (squares: number[]) => squares.reduce((sum, square) => sum + square, 0);
    // By how much depends on how disturbed the machine was while they ran.
    expect(total(misses(fitted))).toBeLessThan(total(misses(machine)));
  });

  it('says in one line what is wrong, and 3 when nothing fits', async () => {
    const job = ['validate', '--model', MODEL, '--hw', at('machine.json'), ...JOB];
    const infeasible = await flexplan(...job, '--gpu-memory', '1MiB', '--cpu-memory', '1MiB', '--disk', '1MiB');
    expect(infeasible.code).toBe(3);
    const none = await flexplan('validate', '--hw', at('machine.json'));
    expect(none).toMatchObject({ code: 2, stdout: '' });
  });
});

describe('validationPolicies', () => {
  const model = findModel('facebook/opt-125m');
  const workload = workloadFromNumbers(32, 8, 16);

  it('begins with the plan and gives only what fits', () => {
    const planned = everythingInMemory('emulated', 16);
    const roomy = emulatedProfile(2 ** 30, LINK_RATE);
    const tight = withCapacity(roomy, { gpu: 200e6 });
    const names = (hardware: typeof roomy) =>
      validationPolicies(model, hardware, workload, planned, 99).map(({ name }) => name);
    expect(names(roomy)).toHaveLength(10);
    expect(names(tight)).not.toContain('all-on-gpu');
    expect(names(tight)).toContain('all-in-ram');
    for (const { name, policy } of validationPolicies(model, tight, workload, planned, 99).slice(1))
      expect([name, estimate(model, tight, workload, policy).fits.gpu]).toEqual([name, true]);
  });

  it('has no gpu tier where the CPU is the device', () => {
    const { links, ...rest } = emulatedProfile(0, LINK_RATE);
    const { diskToCpu, cpuToDisk } = links;
    const cpu = { ...rest, device: 'cpu', links: { diskToCpu, cpuToDisk } } as const;
    const policies = validationPolicies(model, cpu, workload, everythingInMemory('cpu', 16), 99);
    expect(policies).toHaveLength(8);
    for (const { policy } of policies) expect(policy.placement.weights.gpu).toBe(0);
  });
});
