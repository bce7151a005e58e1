import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { sampleRun } from '../report/sample-run.js';
import { documentOf, flexplan } from './cli.js';
import { temporaryFolder } from './temporary-folder.js';

const JOB = ['--hw', 't4', '--model', 'facebook/opt-30b', '--prompt-tokens', '512', '--gen-tokens', '32'];
const PERCENT = ['--percent', '20', '80', '0', '100', '0', '100', '--gpu-batch-size', '48', '--num-gpu-batches', '3'];

describe('lists', () => {
  it('models --json and its table name the same models', async () => {
    const { models } = documentOf(await flexplan('models', '--json')) as { models: { name: string }[] };
    const { stdout } = await flexplan('models');
    expect(models.length).toBeGreaterThanOrEqual(30);
    for (const { name } of models) expect(stdout).toContain(name);
  });

  it('profiles --json and its table name the same machines', async () => {
    const { profiles } = documentOf(await flexplan('profiles', '--json')) as { profiles: { name: string }[] };
    const { stdout } = await flexplan('profiles');
    expect(profiles.length).toBeGreaterThanOrEqual(12);
    for (const { name } of profiles) expect(stdout).toContain(name);
  });
});

describe('estimate', () => {
  it('prints one document of the contract', async () => {
    const outcome = await flexplan('estimate', ...JOB, ...PERCENT, '--cpu-attention', '1', '--json');
    const document = documentOf(outcome);
    expect(outcome.stderr).toBe('');
    expect(document).toMatchObject({
      schemaVersion: 1,
      source: 'estimated',
      model: { name: 'facebook/opt-30b', numLayers: 48 },
      hardware: { name: 't4' },
      workload: { promptTokens: 512, genTokens: 32 },
      policy: { gpuBatchSize: 48, numGpuBatches: 3, weightBits: 16, cpuAttentionFraction: 1, overlap: true },
    });
    const estimate = document['estimate'] as Record<string, number>;
    expect(estimate['totalSeconds']).toBeCloseTo(estimate['prefillSeconds']! + estimate['decodeSeconds']!, 9);
    expect(estimate['genTokensPerSecond']! * estimate['totalSeconds']!).toBeCloseTo(144 * 32, 6);
  });

  it('lets the CPU attend to KV cache on disk, too', async () => {
    const onDisk = ['--percent', '0', '100', '0', '0', '0', '100', '--gpu-batch-size', '8', '--cpu-attention', '1'];
    const { policy, estimate } = documentOf(await flexplan('estimate', ...JOB, ...onDisk, '--json'));
    expect(policy).toMatchObject({ cpuAttentionFraction: 1, diskKvCpuAttentionFraction: 1 });
    const { stageSeconds } = estimate as { stageSeconds: { decode: { cpuAttention: number } } };
    expect(stageSeconds.decode.cpuAttention).toBeGreaterThan(0);
  });

  it('takes a policy from a file, and a plan for the policy in it', async () => {
    const folder = temporaryFolder();
    const direct = documentOf(await flexplan('estimate', ...JOB, ...PERCENT, '--json'));
    writeFileSync(join(folder, 'policy.json'), JSON.stringify(direct['policy']));
    writeFileSync(join(folder, 'plan.json'), JSON.stringify(direct));
    for (const file of ['policy.json', 'plan.json']) {
      const document = documentOf(await flexplan('estimate', ...JOB, '--policy', join(folder, file), '--json'));
      expect(document['estimate']).toEqual(direct['estimate']);
    }
  });

  it('lets caps and --no-overlap count', async () => {
    const of = async (...more: string[]) =>
      documentOf(await flexplan('estimate', ...JOB, ...PERCENT, '--json', ...more))['estimate'] as {
        totalSeconds: number;
        fits: Record<string, boolean>;
      };
    const base = await of();
    const capped = await of('--cpu-memory', '16GiB');
    expect(base.fits['cpu']).toBe(true);
    expect(capped.fits['cpu']).toBe(false);
    expect((await of('--no-overlap')).totalSeconds).toBeGreaterThan(base.totalSeconds);
  });

  it('names the file and the field of a bad document', async () => {
    const path = join(temporaryFolder(), 'policy.json');
    writeFileSync(path, JSON.stringify({ gpuBatchSize: 'many' }));
    const { code, stderr } = await flexplan('estimate', ...JOB, '--policy', path);
    expect(code).toBe(2);
    expect(stderr).toContain(path);
    writeFileSync(path, '{ "gpuBatchSize": ');
    expect((await flexplan('estimate', ...JOB, '--policy', path)).stderr).toMatch(/as JSON in .*does not parse/);
  });
});

describe('report', () => {
  it('builds the page and its charts from stored results, and leaves other documents out aloud', async () => {
    const folder = temporaryFolder();
    const results = join(folder, 'results/a');
    mkdirSync(results, { recursive: true });
    writeFileSync(join(results, 'first.json'), JSON.stringify(sampleRun));
    writeFileSync(join(results, 'plan.json'), JSON.stringify({ source: 'estimated' }));
    const out = join(folder, 'out');
    const outcome = await flexplan('report', '--from', join(folder, 'results'), '--out', out, '--json');
    expect(outcome.code).toBe(0);
    expect((documentOf(outcome)['files'] as string[]).length).toBe(5);
    expect(outcome.stderr).toContain('plan.json: not a measured run');
    expect(readdirSync(out).sort()).toEqual(
      ['first-memory.png', 'first-stages.png', 'first-time.png', 'first-traffic.png', 'index.html'].sort(),
    );
    expect(readFileSync(join(out, 'index.html'), 'utf8')).toContain('Emulated GPU');
    expect(readFileSync(join(out, 'first-time.png')).subarray(1, 4).toString()).toBe('PNG');
  });

  it('refuses a result with a field missing, and writes nothing', async () => {
    const folder = temporaryFolder();
    writeFileSync(join(folder, 'run.json'), JSON.stringify({ ...sampleRun, peakBytes: {} }));
    const { code, stderr } = await flexplan('report', '--from', folder, '--out', join(folder, 'out'));
    expect(code).toBe(2);
    expect(stderr).toContain('run.json: expected field "peakBytes.gpu"');
    expect(existsSync(join(folder, 'out'))).toBe(false);
  });
});
