import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Estimate } from '../../src/cost-model/estimate-types.js';
import type { Plan } from '../../src/solver/plan.js';
import { documentOf, flexplan } from './cli.js';
import { emulatedProfile } from './sample-profile.js';
import { temporaryFolder } from './temporary-folder.js';

const OPT_30B = ['--hw', 't4', '--model', 'facebook/opt-30b', '--prompt-tokens', '512', '--gen-tokens', '32'];
/** One shape: what is tested here is the command, not the search. */
const ONE_SHAPE = ['--gpu-batch-size', '16', '--num-gpu-batches', '4'];

describe('optimize', () => {
  it('writes the plan that it prints, and the estimate of that plan is the same', async () => {
    const out = join(temporaryFolder(), 'plans/plan.json');
    const outcome = await flexplan('optimize', ...OPT_30B, ...ONE_SHAPE, '--out', out, '--json');
    const plan = documentOf(outcome) as unknown as Plan;
    expect(outcome.code).toBe(0);
    expect(JSON.parse(readFileSync(out, 'utf8'))).toEqual(plan);
    expect(plan).toMatchObject({ schemaVersion: 1, source: 'estimated', search: { status: 'optimal' } });
    expect(plan.policy).toMatchObject({ gpuBatchSize: 16, numGpuBatches: 4 });
    // The plan's estimate is of whole slices, the command's of fractions as they stand.
    const rateOf = async (path: string) =>
      (documentOf(await flexplan('estimate', ...OPT_30B, '--policy', path, '--json'))['estimate'] as Estimate)
        .genTokensPerSecond / plan.estimate.genTokensPerSecond;
    const slices = join(temporaryFolder(), 'slices.json');
    writeFileSync(slices, JSON.stringify({ ...plan.policy, placement: plan.realised.placement }));
    expect(await rateOf(slices)).toBeCloseTo(1, 2); // GPU batches that differ are averaged
    const mostOfSlot = 1 / (16 * 4);
    expect(await rateOf(out)).toBeGreaterThan(1 - 1e-3);
    expect(await rateOf(out)).toBeLessThan(1 + mostOfSlot);
  });

  it('prints what a person needs', async () => {
    const { stdout, code } = await flexplan('optimize', ...OPT_30B, ...ONE_SHAPE, '--explain');
    expect(code).toBe(0);
    for (const words of [
      'generated tokens/s',
      '16 x 4 = 64 sequences a block',
      'decode attention',
      'KV cache',
      'bottleneck',
      'peak memory',
      'Accelerate',
      'linear programs',
      'What binds',
    ])
      expect(stdout).toContain(words);
  });

  it('keeps to the caps', async () => {
    const caps = ['--gpu-memory', '10GiB', '--cpu-memory', '100GiB', '--disk', '100GB'];
    const plan = documentOf(await flexplan('optimize', ...OPT_30B, ...ONE_SHAPE, ...caps, '--json')) as unknown as Plan;
    expect(plan.hardware.capacityBytes).toEqual({ gpu: 10 * 2 ** 30, cpu: 100 * 2 ** 30, disk: 100e9 });
    for (const tier of ['gpu', 'cpu', 'disk'] as const)
      expect(plan.estimate.peakBytes[tier]).toBeLessThanOrEqual(plan.hardware.capacityBytes[tier]);
  });

  it('says what is missing when nothing fits: exit 3, one document or one line, no plan', async () => {
    const out = join(temporaryFolder(), 'plan.json');
    const small = [...OPT_30B, '--cpu-memory', '2GiB', '--disk', '1GiB', '--out', out];
    const asJson = await flexplan('optimize', ...small, '--json');
    const document = documentOf(asJson);
    expect(asJson.code).toBe(3);
    expect(document['status']).toBe('infeasible');
    expect((document['shortfall'] as { missingBytes: number }[])[0]!.missingBytes).toBeGreaterThan(0);
    expect((document['remedies'] as string[]).length).toBeGreaterThan(0);
    const asText = await flexplan('optimize', ...small);
    expect(asText.code).toBe(3);
    expect(asText.stdout).toBe('');
    expect(asText.stderr).toMatch(/^flexplan: expected a policy that fits, got none: .* lacks .*\n$/);
    expect(existsSync(out)).toBe(false);
  });

  it('takes the exact token counts of a prompt file', async () => {
    const folder = temporaryFolder();
    const at = (name: string) => join(folder, name);
    writeFileSync(at('machine.json'), JSON.stringify(emulatedProfile(64 * 2 ** 20, 1e9)));
    const lines = [
      { custom_id: 'a', body: { prompt: [2, 10, 11, 12], max_tokens: 3 } },
      { custom_id: 'b', body: { prompt: [2, 10], max_tokens: 7 } },
    ];
    writeFileSync(at('prompts.jsonl'), lines.map((line) => JSON.stringify(line)).join('\n'));
    const args = ['--hw', at('machine.json'), '--model', 'examples/opt-kjv-5m', '--input', at('prompts.jsonl')];
    const plan = documentOf(await flexplan('optimize', ...args, '--json')) as unknown as Plan;
    expect(plan.workload).toEqual({ promptTokens: 4, genTokens: 7, numSequences: 2 });
    expect(plan.estimate.genTokensPerSecond * plan.estimate.totalSeconds).toBeCloseTo(10, 6);
  });
});
