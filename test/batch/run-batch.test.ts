/** A prompt file through the engine, killed and resumed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { preparePrompts } from '../../src/batch/prompt-file.js';
import { runBatch, type BatchOptions, type BatchProgress } from '../../src/batch/run-batch.js';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { openModelFolder } from '../../src/engine/model-folder.js';
import { loadTokenizer } from '../../src/engine/tokenizer.js';
import { SCHEDULES } from '../../src/policy/policy.js';
import { describeNative, KJV, readJson, ROOT } from '../engine/native.js';
import { temporaryFolder } from '../engine/temporary-folder.js';

interface Line {
  custom_id: string;
  error: { code: string; message: string } | null;
  response: {
    status_code: number;
    body: {
      choices: { text: string; finish_reason: string }[];
      usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number };
    };
  } | null;
}

const root = temporaryFolder();
const folder = await openModelFolder(KJV);
const tokenizer = (await loadTokenizer(KJV))!;
const promptText = readFileSync(`${KJV}/prompts.jsonl`, 'utf8');

const newOutput = () => join(mkdtempSync(join(root, 'job-')), 'out.jsonl');

function options(outputPath: string, changes: Partial<BatchOptions> = {}, text = promptText): BatchOptions {
  return {
    prompts: preparePrompts(text, 'prompts.jsonl', folder.model, tokenizer),
    tokenizer,
    outputPath,
    engine: { folder, device: 'cpu', policy: { ...everythingInMemory('cpu', 8), numGpuBatches: 2 }, numThreads: 2 },
    ...changes,
  };
}

const sorted = (path: string) => readFileSync(path, 'utf8').trimEnd().split('\n').sort();
const lines = (path: string) => sorted(path).map((line) => JSON.parse(line) as Line);

describeNative('a prompt file', () => {
  test('gives one line per request, in the batch form', async () => {
    const outputPath = newOutput();
    const progress: BatchProgress[] = [];
    const maxTokens = 20;
    const text = promptText.replace(/"max_tokens": \d+/g, `"max_tokens": ${maxTokens}`);
    const result = await runBatch(options(outputPath, { onProgress: (p) => progress.push(p) }, text));
    expect(result).toMatchObject({ resumedRequests: 0, badRequests: 0 });
    const results = lines(outputPath);
    expect(results).toHaveLength(64);
    const { completions } = readJson<{
      completions: { promptIds: number[]; greedyIds: number[]; minMargin: number }[];
    }>(`${KJV}/expected.json`);
    let decided = 0;
    completions.forEach(({ promptIds, greedyIds, minMargin }, i) => {
      const { response, error } = results[i]!;
      expect(error).toBeNull();
      const { choices, usage } = response!.body;
      expect(usage.prompt_tokens).toBe(promptIds.length);
      expect(usage.total_tokens).toBe(usage.prompt_tokens + usage.completion_tokens);
      if (minMargin < 0.05) return;
      decided++;
      const ids = greedyIds.slice(0, maxTokens);
      const end = ids.indexOf(2);
      expect(choices[0]!.text).toBe(tokenizer.decode(end < 0 ? ids : ids.slice(0, end)));
      expect(choices[0]!.finish_reason).toBe(end < 0 ? 'length' : 'stop');
    });
    expect(decided).toBeGreaterThanOrEqual(4);
    const last = progress.at(-1)!;
    expect(last).toMatchObject({ finishedRequests: 64, totalRequests: 64 });
    const generated = results.reduce((sum, { response }) => sum + response!.body.usage.completion_tokens, 0);
    expect(last.genTokens).toBe(generated);
  });

  test('a line that cannot be served gets an error, the rest goes on', async () => {
    const outputPath = newOutput();
    const text = '{"prompt": "And the LORD", "max_tokens": 3}\nnonsense\n{"prompt": "And God", "max_tokens": 3}\n';
    const result = await runBatch(options(outputPath, {}, text));
    expect(result.badRequests).toBe(1);
    const [first, second, third] = lines(outputPath);
    expect([first, second, third].map((line) => [line!.custom_id, line!.error === null])).toEqual([
      ['1', true],
      ['2', false],
      ['3', true],
    ]);
    expect(second!.error!.message).toMatch(/line 2/);
  });

  test('stop strings end a request and free its place', async () => {
    const outputPath = newOutput();
    const text = ['{"prompt": "And the LORD said unto Moses", "max_tokens": 60, "stop": ","}', '{"prompt": "In the"}'];
    await runBatch(options(outputPath, {}, text.join('\n')));
    const [first, second] = lines(outputPath);
    expect(first!.response!.body.choices[0]!).toMatchObject({ finish_reason: 'stop' });
    expect(first!.response!.body.choices[0]!.text).not.toContain(',');
    expect(second!.response!.body.usage.completion_tokens).toBe(16);
  });

  test('nothing that exists is overwritten unless asked', async () => {
    const outputPath = newOutput();
    writeFileSync(outputPath, 'precious');
    await expect(runBatch(options(outputPath))).rejects.toThrow(/--overwrite/);
    expect(readFileSync(outputPath, 'utf8')).toBe('precious');
    await runBatch(options(outputPath, { overwrite: true }));
    expect(lines(outputPath)).toHaveLength(64);
  });
});

describeNative('interrupted jobs', () => {
  test('the same call goes on; results do not depend on the interruption', async () => {
    const whole = newOutput();
    await runBatch(options(whole));
    const outputPath = newOutput();
    const abort = new AbortController();
    const stopAfter = 20;
    const engine = { ...options(outputPath).engine, signal: abort.signal };
    const onProgress = (p: BatchProgress) => p.finishedRequests >= stopAfter && abort.abort();
    await expect(runBatch(options(outputPath, { engine, onProgress }))).rejects.toMatchObject({ code: 'interrupted' });
    expect(existsSync(outputPath)).toBe(false);
    const { resumedRequests, requests } = await runBatch(options(outputPath));
    expect(resumedRequests).toBeGreaterThanOrEqual(stopAfter);
    expect(resumedRequests + requests.length).toBe(64);
    expect(requests.length).toBeGreaterThan(0);
    expect(sorted(outputPath)).toEqual(sorted(whole));
  });

  test('a job that was finished but not renamed needs no engine', async () => {
    const outputPath = newOutput();
    const abort = new AbortController();
    const engine = { ...options(outputPath).engine, signal: abort.signal };
    const onProgress = (p: BatchProgress) => p.finishedRequests === 64 && abort.abort();
    await runBatch(options(outputPath, { engine, onProgress })).catch(() => undefined);
    expect(existsSync(`${outputPath}.partial`)).toBe(true);
    const result = await runBatch(options(outputPath));
    expect(result.run).toBeUndefined();
    expect(lines(outputPath)).toHaveLength(64);
  });

  test.each(SCHEDULES)('%s: kill -9 in the middle, then the same job again', async (schedule) => {
    let n = 0;
    const text = promptText.replace(/"max_tokens": \d+/g, () => `"max_tokens": ${4 + ((n++ * 11) % 23)}`);
    const inputPath = `${newOutput()}.prompts`;
    writeFileSync(inputPath, text);
    const whole = newOutput();
    await runBatch(options(whole, {}, text));
    const outputPath = newOutput();
    const policy = { ...everythingInMemory('cpu', 8), schedule };
    const script = `
      const dist = (path) => import(${JSON.stringify(`${ROOT}dist/`)} + path);
      const { runBatch } = await dist('batch/run-batch.js');
      const { readPromptFile } = await dist('batch/prompt-file.js');
      const { openModelFolder } = await dist('engine/model-folder.js');
      const { loadTokenizer } = await dist('engine/tokenizer.js');
      const model = ${JSON.stringify(KJV)};
      const folder = await openModelFolder(model);
      const tokenizer = await loadTokenizer(model);
      await runBatch({
        prompts: await readPromptFile(${JSON.stringify(inputPath)}, folder.model, tokenizer), tokenizer,
        outputPath: ${JSON.stringify(outputPath)},
        engine: { folder, device: 'cpu', policy: ${JSON.stringify(policy)}, numThreads: 1 },
        onProgress: (p) => { if (p.finishedRequests >= 24) process.kill(process.pid, 'SIGKILL'); },
      });`;
    const job = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'inherit' });
    const [, signal] = (await once(job, 'exit')) as [number | null, string | null];
    expect(signal).toBe('SIGKILL');
    expect(existsSync(outputPath)).toBe(false);
    const engine = { ...options(outputPath).engine, policy };
    const { resumedRequests, requests } = await runBatch(options(outputPath, { engine }, text));
    expect(resumedRequests).toBeGreaterThanOrEqual(24);
    expect(requests.length).toBeGreaterThan(0);
    expect(sorted(outputPath)).toEqual(sorted(whole));
  });

  test('other prompts, or the same with fewer values, may not go on in its place', async () => {
    const outputPath = newOutput();
    const abort = new AbortController();
    const engine = { ...options(outputPath).engine, signal: abort.signal };
    await runBatch(options(outputPath, { engine, onProgress: () => abort.abort() })).catch(() => undefined);
    await expect(runBatch(options(outputPath, {}, '{"prompt": "x"}'))).rejects.toThrow(/another job's/);
    const policy = { ...engine.policy, sparseValueFraction: 0.1 };
    await expect(runBatch(options(outputPath, { engine: { ...options(outputPath).engine, policy } }))).rejects.toThrow(
      /another job's/,
    );
  });
});
