import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import type { RunDocument } from '../../src/report/run-document.js';
import type { Plan } from '../../src/solver/plan.js';
import { documentOf, flexplan, ROOT, start } from './cli.js';
import { emulatedProfile } from './sample-profile.js';
import { temporaryFolder } from './temporary-folder.js';

const MODEL = join(ROOT, 'examples/opt-kjv-5m');
const GPU_BYTES = 8 * 2 ** 20;
const LINK_RATE = 200e6;
const NUM_PROMPTS = 12;

/** Prompts, profile and plan of a small job, made once. */
let files: { prompts: string; machine: string; plan: string };

beforeAll(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'flexplan-test-'));
  const path = (name: string) => join(folder, name);
  const prompts = readFileSync(join(MODEL, 'prompts.jsonl'), 'utf8').split('\n').slice(0, NUM_PROMPTS).join('\n');
  const machine = JSON.stringify(emulatedProfile(GPU_BYTES, LINK_RATE));
  writeFileSync(path('prompts.jsonl'), prompts);
  writeFileSync(path('machine.json'), machine);
  const job = ['--hw', path('machine.json'), '--model', MODEL, '--input', path('prompts.jsonl')];
  const { stderr } = await flexplan('optimize', ...job, '--out', path('plan.json'), '--json');
  expect(stderr).toBe(`Plan written to ${path('plan.json')}\n`);
  files = { prompts, machine, plan: readFileSync(path('plan.json'), 'utf8') };
  rmSync(folder, { recursive: true });
});

/** A folder of its own with the job's files in it. */
function prepare() {
  const folder = temporaryFolder();
  const at = (name: string) => join(folder, name);
  writeFileSync(at('prompts.jsonl'), files.prompts);
  writeFileSync(at('machine.json'), files.machine);
  writeFileSync(at('plan.json'), files.plan);
  const job = ['--model', MODEL, '--input', at('prompts.jsonl'), '--output', at('out.jsonl')];
  return { folder, at, job, planned: [...job, '--plan', at('plan.json')] };
}

function linesOf(path: string): { custom_id: string }[] {
  return readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { custom_id: string });
}

const resultsOf = (path: string) => readFileSync(path, 'utf8').split('\n').sort();

describe('run', () => {
  let run: RunDocument & { plan: Plan };
  let trace: { traceEvents: { ph: string; cat?: string }[] };
  let left: string[];

  beforeAll(async () => {
    const { folder, at, planned } = prepare();
    const outcome = await flexplan('run', ...planned, '--trace', at('trace.json'), '--out', at('run.json'), '--json');
    expect(outcome.stderr).not.toContain('flexplan:');
    expect(outcome.code).toBe(0);
    run = documentOf(outcome) as unknown as typeof run;
    expect(JSON.parse(readFileSync(at('run.json'), 'utf8'))).toEqual(run);
    trace = JSON.parse(readFileSync(at('trace.json'), 'utf8')) as typeof trace;
    left = readdirSync(folder).sort();
    expect(linesOf(at('out.jsonl'))).toHaveLength(NUM_PROMPTS);
  });

  it('prints the document of the contract, every number consistent with the others', () => {
    expect(run).toMatchObject({ schemaVersion: 1, source: 'measured', device: 'emulated', numSequences: NUM_PROMPTS });
    expect(run.totalSeconds).toBeCloseTo(run.prefillSeconds + run.decodeSeconds, 12);
    expect(run.genTokensPerSecond).toBeCloseTo(run.genTokens / run.totalSeconds, 6);
    for (const name of ['prefillSeconds', 'decodeSeconds', 'totalSeconds', 'genTokensPerSecond'] as const)
      expect(run.error[name]).toBeCloseTo((run.predicted[name] - run[name]) / run[name], 9);
  });

  it('stays below the caps and the predicted peaks', () => {
    for (const tier of ['gpu', 'cpu', 'disk'] as const) {
      expect(run.peakBytes[tier]).toBeLessThanOrEqual(run.capacityBytes[tier]);
      expect(run.peakBytes[tier]).toBeLessThanOrEqual(run.predicted.peakBytes[tier]);
    }
    expect(run.capacityBytes.gpu).toBe(GPU_BYTES);
    expect(run.placedBytes.weights).toEqual(run.plan.realised.bytes.weights);
  });

  it('traces every task that it ran', () => {
    const spans = trace.traceEvents.filter(({ ph }) => ph === 'X');
    expect(spans.length).toBeGreaterThan(run.plan.model.numLayers);
    expect(spans.some(({ cat }) => cat === 'compute')).toBe(true);
  });

  it('leaves nothing but what was asked for', () => {
    expect(left).toEqual(['machine.json', 'out.jsonl', 'plan.json', 'prompts.jsonl', 'run.json', 'trace.json']);
  });
});

describe('run, otherwise', () => {
  it('plans first when given a profile, and prints predicted beside measured', async () => {
    const { at, job } = prepare();
    const { code, stdout } = await flexplan('run', ...job, '--hw', at('machine.json'));
    expect(code).toBe(0);
    expect(stdout).toContain('emulated GPU');
    for (const word of ['predicted', 'measured', 'error', 'prefill', 'decode', 'peak memory'])
      expect(stdout).toContain(word);
  });

  it('reads fewer values when told to, and says so in the result', async () => {
    const { at, job } = prepare();
    const planned = [...job, '--hw', at('machine.json')];
    const outcome = await flexplan('run', ...planned, '--sparse-values', '0.1', '--json');
    expect(outcome.code).toBe(0);
    expect(documentOf(outcome)).toMatchObject({ plan: { policy: { sparseValueFraction: 0.1 } } });
    const sparse = resultsOf(at('out.jsonl'));
    expect((await flexplan('run', ...planned, '--overwrite')).code).toBe(0);
    const dense = resultsOf(at('out.jsonl'));
    expect(dense).toHaveLength(sparse.length);
    expect(dense).not.toEqual(sparse);
  });

  it('lets prompts in as others end, when asked to: the same completions within the predicted memory', async () => {
    const { at, planned } = prepare();
    const plan = JSON.parse(files.plan) as Plan;
    const inRam = { gpu: 0, cpu: 1, disk: 0 };
    const placement = { weights: inRam, kvCache: inRam, activations: inRam };
    const policy = { ...plan.policy, placement, gpuBatchSize: 2, numGpuBatches: 2 };
    writeFileSync(at('plan.json'), JSON.stringify({ ...plan, policy }));
    const zigzag = documentOf(await flexplan('run', ...planned, '--json')) as unknown as RunDocument;
    const expected = resultsOf(at('out.jsonl'));
    const outcome = await flexplan('run', ...planned, '--overwrite', '--schedule', 'diagonal', '--json');
    expect(outcome.code).toBe(0);
    const document = documentOf(outcome) as unknown as RunDocument;
    expect(resultsOf(at('out.jsonl'))).toEqual(expected);
    expect(document.plan.policy.schedule).toBe('diagonal');
    for (const tier of ['gpu', 'cpu', 'disk'] as const)
      expect(document.peakBytes[tier]).toBeLessThanOrEqual(document.predicted.peakBytes[tier]);
    expect(document.predicted.totalSeconds).not.toBe(zigzag.predicted.totalSeconds);
    const wrong = await flexplan('run', ...planned, '--overwrite', '--schedule', 'spiral');
    expect(wrong.stderr).toContain('expected one of zigzag, diagonal');
  });

  it('does not overwrite results unless told to', async () => {
    const { at, planned } = prepare();
    writeFileSync(at('out.jsonl'), 'precious\n');
    const refused = await flexplan('run', ...planned);
    expect(refused.code).toBe(2);
    expect(refused.stderr).toContain('--overwrite');
    expect(readFileSync(at('out.jsonl'), 'utf8')).toBe('precious\n');
    expect((await flexplan('run', ...planned, '--overwrite')).code).toBe(0);
    expect(linesOf(at('out.jsonl'))).toHaveLength(NUM_PROMPTS);
  });

  it('refuses the plan of another model before it writes anything', async () => {
    const { folder, at, planned } = prepare();
    const plan = JSON.parse(readFileSync(at('plan.json'), 'utf8')) as Plan;
    writeFileSync(at('plan.json'), JSON.stringify({ ...plan, model: { ...plan.model, numLayers: 7 } }));
    const before = readdirSync(folder);
    const { code, stderr } = await flexplan('run', ...planned);
    expect(code).toBe(2);
    expect(stderr).toMatch(/plan's .*numLayers 7.*numLayers 6.*flexplan optimize/);
    expect(readdirSync(folder)).toEqual(before);
  });

  it('refuses prompts that the plan has no room for', async () => {
    const { folder, at, planned } = prepare();
    writeFileSync(at('prompts.jsonl'), JSON.stringify({ prompt: 'and '.repeat(400), max_tokens: 4 }));
    const before = readdirSync(folder);
    const { code, stderr } = await flexplan('run', ...planned);
    expect(code).toBe(2);
    expect(stderr).toMatch(/within the plan's promptTokens \d+, got one of \d+/);
    expect(readdirSync(folder)).toEqual(before);
  });

  it('serves the rest when one line is bad, and says so', async () => {
    const { at, planned } = prepare();
    const lines = readFileSync(at('prompts.jsonl'), 'utf8').split('\n');
    writeFileSync(at('prompts.jsonl'), [...lines, '{"custom_id": "bad", "body": {"prompt": 7}}'].join('\n'));
    const { code, stderr } = await flexplan('run', ...planned);
    expect(code).toBe(0);
    expect(stderr).toContain('1 requests could not be served');
    const bad = linesOf(at('out.jsonl')).find(({ custom_id }) => custom_id === 'bad');
    expect(bad).toHaveProperty('error.message');
  });

  it('stops at an interrupt with 130, and the same command finishes the job', async () => {
    const { folder, at, planned } = prepare();
    const { child, outcome } = start(['run', ...planned, '--link-bandwidth', '4MB/s']);
    child.stderr!.on('data', (chunk: Buffer) => chunk.toString().includes('prompts') && child.kill('SIGINT'));
    const { code, stdout } = await outcome;
    expect(code).toBe(130);
    expect(stdout).toBe('');
    expect(existsSync(at('out.jsonl'))).toBe(false);
    expect((await flexplan('run', ...planned)).code).toBe(0);
    expect(linesOf(at('out.jsonl'))).toHaveLength(NUM_PROMPTS);
    expect(readdirSync(folder).sort()).toEqual(['machine.json', 'out.jsonl', 'plan.json', 'prompts.jsonl']);
  });
});
