import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { documentOf, flexplan } from './cli.js';
import { temporaryFolder } from './temporary-folder.js';

const MODEL = ['--model', 'examples/opt-kjv-5m', '--device', 'cpu'];

interface Completion {
  readonly promptIds: number[];
  readonly tokenIds: number[];
  readonly text: string;
  readonly finishReason: string;
  readonly logits?: number[][];
}

async function completions(...args: string[]): Promise<Completion[]> {
  const outcome = await flexplan('generate', ...MODEL, ...args, '--json');
  expect(outcome.stderr).toBe('');
  return documentOf(outcome)['completions'] as Completion[];
}

describe('generate', () => {
  it('completes each prompt, text or ids, in the order given', async () => {
    const [first, second] = await completions('--prompt', 'In the beginning', 'And it came', '--max-tokens', '6');
    expect(first!.tokenIds).toHaveLength(6);
    expect(first!.finishReason).toBe('length');
    const ids = ['--prompt-ids', first!.promptIds.join(','), '--prompt-ids', second!.promptIds.join(',')];
    expect(await completions(...ids, '--max-tokens', '6')).toEqual([first, second]);
  });

  it('adds the logits of the first steps, of which greedy takes the largest', async () => {
    const [{ logits, tokenIds }] = (await completions(
      '--prompt',
      'And God said',
      '--max-tokens',
      '3',
      '--logits',
      '2',
    )) as [Completion];
    expect(logits).toHaveLength(2);
    logits!.forEach((step, i) => {
      expect(step).toHaveLength(2048);
      expect(step.indexOf(Math.max(...step))).toBe(tokenIds[i]);
    });
  });

  it('samples the same from the same seed, and otherwise from another', async () => {
    const of = (seed: string) =>
      completions('--prompt', 'And', '--max-tokens', '12', '--temperature', '1', '--seed', seed);
    const [one, again, other] = await Promise.all([of('1'), of('1'), of('2')]);
    expect(again).toEqual(one);
    expect(other).not.toEqual(one);
  });

  it('gives the same tokens under a policy that offloads', async () => {
    const policy = {
      gpuBatchSize: 1,
      numGpuBatches: 2,
      placement: {
        weights: { gpu: 0.3, cpu: 0.3, disk: 0.4 },
        kvCache: { gpu: 0, cpu: 0.5, disk: 0.5 },
        activations: { gpu: 0, cpu: 1, disk: 0 },
      },
      weightBits: 16,
      kvCacheBits: 16,
      quantGroupSize: 64,
      cpuAttentionFraction: 1,
      overlap: true,
    };
    const path = join(temporaryFolder(), 'policy.json');
    writeFileSync(path, JSON.stringify(policy));
    const prompts = ['--prompt', 'In the beginning', '--prompt', 'And the king', '--max-tokens', '8'];
    const emulated = ['--device', 'emulated', '--gpu-memory', '64MiB', '--link-bandwidth', '1GB/s'];
    expect(await completions(...prompts, '--policy', path, ...emulated)).toEqual(await completions(...prompts));
  });

  it('reads fewer values when told to, as a policy file can tell it, too', async () => {
    const prompt = ['--prompt', 'In the beginning', '--max-tokens', '8', '--logits', '1'];
    const sparse = await completions(...prompt, '--sparse-values', '0.1');
    expect(sparse[0]!.logits).not.toEqual((await completions(...prompt))[0]!.logits);
    expect(await completions(...prompt, '--sparse-values', '1')).toEqual(await completions(...prompt));
    const path = join(temporaryFolder(), 'policy.json');
    writeFileSync(path, JSON.stringify({ ...everythingInMemory('cpu', 1), sparseValueFraction: 0.1 }));
    expect(await completions(...prompt, '--policy', path)).toEqual(sparse);
  });

  it.each(['0', '1.5', 'few'])('refuses a share of %s', async (share) => {
    const { code, stderr } = await flexplan('generate', ...MODEL, '--prompt', 'x', '--sparse-values', share);
    expect(code).toBe(2);
    expect(stderr).toContain(`--sparse-values: expected a number above 0 and at most 1, got "${share}"`);
  });

  it('prints prompt and text for people', async () => {
    const { stdout, code } = await flexplan('generate', ...MODEL, '--prompt', 'In the beginning', '--max-tokens', '8');
    expect(code).toBe(0);
    expect(stdout).toMatch(/^In the beginning \w/);
  });

  it('refuses an id that the model has not', async () => {
    const { code, stderr } = await flexplan('generate', ...MODEL, '--prompt-ids', '2,99999');
    expect(code).toBe(2);
    expect(stderr).toContain('expected token ids from 0 to 2047, got 99999');
  });
});
