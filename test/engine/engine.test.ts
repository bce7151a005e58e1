/** The engine as an object: what it refuses, how it ends, and that its process never outlives anyone. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { Engine, type Sequence } from '../../src/engine/engine.js';
import { generate } from '../../src/engine/generate.js';
import { openModelFolder } from '../../src/engine/model-folder.js';
import { loadTokenizer } from '../../src/engine/tokenizer.js';
import { FlexplanError } from '../../src/errors.js';
import { TIERS } from '../../src/tiers.js';
import { MIB } from '../../src/units.js';
import { temporaryFolder } from './temporary-folder.js';
import { describeNative, engineOptions, fixtureFolder, greedy, KJV, ROOT, runOnce, systemInfo } from './native.js';
import { everythingInMemory } from '../../src/engine/default-policy.js';

const { cudaDevices } = await systemInfo();

const SHORT = [greedy([2, 5, 7], 4), greedy([2, 9], 4)];
/** Far longer than any test waits. */
const LONG = Array.from({ length: 64 }, (_, i) => greedy([2, 5 + i], 500));

/** An engine with a run in flight that has taken its first step. */
async function busyEngine(): Promise<{ engine: Engine; running: Promise<unknown> }> {
  const engine = await Engine.open(engineOptions(await openModelFolder(KJV), LONG));
  let running!: Promise<unknown>;
  await new Promise<void>((started) => {
    running = engine.run(LONG, { onStep: () => started() });
  });
  return { engine, running };
}

async function failureOf(promise: Promise<unknown>): Promise<FlexplanError> {
  const outcome = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(outcome instanceof FlexplanError)) throw new Error('expected a FlexplanError', { cause: outcome });
  return outcome;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function gone(pid: number): Promise<boolean> {
  for (let i = 0; i < 500 && isAlive(pid); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  return !isAlive(pid);
}

describeNative('lifecycle', () => {
  const folder = fixtureFolder('opt-tiny-fp32');
  type Method = (engine: Engine) => unknown;
  const METHODS: Record<string, Method> = {
    run: (engine) => engine.run(SHORT),
    cancel: (engine) => engine.cancel(),
    cancelSequence: (engine) => engine.cancelSequence(0),
    close: (engine) => engine.close(),
  };

  /** State -> method -> code of the error, or undefined where it is allowed. */
  const ALLOWED: Record<string, Record<string, string | undefined>> = {
    open: { run: undefined, cancel: undefined, cancelSequence: undefined, close: undefined },
    busy: { run: 'usage', cancel: undefined, cancelSequence: undefined, close: undefined },
    closed: { run: 'usage', cancel: undefined, cancelSequence: undefined, close: undefined },
    dead: { run: 'engine-died', cancel: undefined, cancelSequence: undefined, close: undefined },
  };

  async function inState(state: string): Promise<{ engine: Engine; running?: Promise<unknown> }> {
    if (state === 'busy') return busyEngine();
    const engine = await Engine.open(engineOptions(await folder, SHORT));
    if (state === 'closed') await engine.close();
    if (state === 'dead') {
      process.kill(engine.pid!, 'SIGKILL');
      expect(await gone(engine.pid!)).toBe(true);
    }
    return { engine };
  }

  const matrix = Object.entries(ALLOWED).flatMap(([state, methods]) =>
    Object.entries(methods).map(([method, code]) => [state, method, code] as const),
  );

  test.each(matrix)('%s engine: %s -> %s', async (state, method, code) => {
    const { engine, running } = await inState(state);
    try {
      const call = (async () => METHODS[method]!(engine))();
      if (code) expect((await failureOf(call)).code).toBe(code);
      else await call;
    } finally {
      await engine.close();
      await running?.catch(() => undefined);
    }
    expect(isAlive(engine.pid!)).toBe(false);
  });

  test('an engine runs again and again, the same', async () => {
    const engine = await Engine.open(engineOptions(await folder, SHORT));
    const runs = [await engine.run(SHORT), await engine.run(SHORT)];
    expect(runs[0]!.sequences).toEqual(runs[1]!.sequences);
    await Promise.all([engine.close(), engine.close()]);
  });

  test('two engines at once do not see each other', async () => {
    const [a, b] = await Promise.all([fixtureFolder('opt-tiny-fp32'), fixtureFolder('llama-tiny-fp32')]);
    const alone = [await runOnce(a, SHORT), await runOnce(b, SHORT)];
    const together = await Promise.all([runOnce(a, SHORT), runOnce(b, SHORT)]);
    together.forEach(({ result }, i) => expect(result.sequences).toEqual(alone[i]!.result.sequences));
  });

  test('closing while busy ends the run', async () => {
    const { engine, running } = await busyEngine();
    await engine.close();
    const result = (await running) as { sequences: { finishReason: string }[] };
    expect(result.sequences.some(({ finishReason }) => finishReason === 'cancelled')).toBe(true);
  });

  test('cancelling before the first step is not too early', async () => {
    const engine = await Engine.open(engineOptions(await openModelFolder(KJV), LONG));
    const running = engine.run(LONG);
    engine.cancel();
    const { sequences } = await running;
    await engine.close();
    for (const { finishReason, tokenIds } of sequences) {
      expect(finishReason).toBe('cancelled');
      expect(tokenIds.length).toBeLessThan(3);
    }
  });

  test('cancelling one sequence leaves the others', async () => {
    const sequences = [greedy([2, 5], 300), greedy([2, 6], 20)];
    const kjv = await openModelFolder(KJV);
    const alone = await runOnce(kjv, [sequences[1]!]);
    const engine = await Engine.open(engineOptions(kjv, sequences));
    const { sequences: results } = await engine.run(sequences, { onStep: () => engine.cancelSequence(0) });
    await engine.close();
    expect(results.map(({ finishReason }) => finishReason)).toEqual(['cancelled', 'length']);
    expect(results[0]!.tokenIds.length).toBeLessThan(300);
    expect(results[1]!.tokenIds).toEqual(alone.result.sequences[0]!.tokenIds);
  });

  test('a step handler that throws ends the run with what it threw', async () => {
    const engine = await Engine.open(engineOptions(await openModelFolder(KJV), LONG));
    const fault = new Error('disk full');
    const onStep = () => {
      throw fault;
    };
    await expect(engine.run(LONG, { onStep })).rejects.toBe(fault);
    expect((await engine.run(SHORT)).sequences).toHaveLength(2);
    await engine.close();
  });

  test('aborting: before opening, while opening, before a run, during a run', async () => {
    const kjv = await openModelFolder(KJV);
    const options = engineOptions(kjv, LONG);
    expect((await failureOf(Engine.open({ ...options, signal: AbortSignal.abort() }))).code).toBe('interrupted');

    const opening = new AbortController();
    const opened = Engine.open({ ...options, signal: opening.signal });
    setImmediate(() => opening.abort());
    expect((await failureOf(opened)).code).toBe('interrupted');

    const engine = await Engine.open(options);
    expect((await failureOf(engine.run(LONG, { signal: AbortSignal.abort() }))).code).toBe('interrupted');
    const running = new AbortController();
    const aborted = engine.run(LONG, { signal: running.signal, onStep: () => running.abort() });
    expect((await failureOf(aborted)).code).toBe('interrupted');
    expect((await engine.run(SHORT)).sequences).toHaveLength(2);
    await engine.close();
  });
});

describeNative('death', () => {
  test.each([
    ['SIGKILL', /SIGKILL.*out of memory/],
    ['SIGSEGV', /SIGSEGV.*fault in the engine/],
  ] as const)('%s', async (signal, message) => {
    const { engine, running } = await busyEngine();
    const failure = failureOf(running);
    process.kill(engine.pid!, signal);
    expect(await failure).toMatchObject({ code: 'engine-died', exitCode: 1 });
    expect((await failure).message).toMatch(message);
    await engine.close();
  });

  test('a parent that is killed takes its engine with it', async () => {
    const script = `
      const { Engine } = await import(${JSON.stringify(`${ROOT}dist/engine/engine.js`)});
      const { openModelFolder } = await import(${JSON.stringify(`${ROOT}dist/engine/model-folder.js`)});
      const { everythingInMemory } = await import(${JSON.stringify(`${ROOT}dist/engine/default-policy.js`)});
      const engine = await Engine.open({
        folder: await openModelFolder(${JSON.stringify(KJV)}), policy: everythingInMemory('cpu', 32),
        workload: { promptTokens: 2, genTokens: 500 }, device: 'cpu', numThreads: 1,
      });
      const sequences = Array.from({ length: 32 }, () => ({
        promptIds: Int32Array.of(2, 5), maxTokens: 500, temperature: 0, topP: 1, seed: 0,
        stopIds: new Int32Array(0), logitsSteps: 0, scorePrompt: false,
      }));
      let told = false;
      await engine.run(sequences, { onStep: () => { if (!told) console.log(engine.pid); told = true; } });`;
    const parent = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(parent.stdout, 'data')) as [Buffer];
    const pid = Number(line.toString());
    expect(isAlive(pid)).toBe(true);
    parent.kill('SIGKILL');
    expect(await gone(pid)).toBe(true);
  });
});

describeNative('refusals', () => {
  const open = async (changes: object) =>
    failureOf(Engine.open(engineOptions(await fixtureFolder('opt-tiny-fp32'), SHORT, changes)));

  test('a cap that is too small names the tier', async () => {
    const error = await open({ capacityBytes: { cpu: 100_000 } });
    expect(error.code).toBe('out-of-memory');
    expect(error.message).toMatch(/cpu/);
    expect(error.message).not.toContain('\n');
  });

  test('the cap of an emulated GPU', async () => {
    const policy = everythingInMemory('emulated', 2);
    const link = { linkBytesPerSecond: { cpuToGpu: 1e9, gpuToCpu: 1e9 } };
    const error = await open({ policy, device: 'emulated', capacityBytes: { gpu: 50_000 }, ...link });
    expect(error.code).toBe('out-of-memory');
    expect(error.message).toMatch(/gpu/);
    expect((await open({ policy, device: 'emulated' })).code).toBe('usage');
  });

  test.skipIf(cudaDevices.length > 0)('no CUDA device here', async () => {
    expect((await open({ policy: everythingInMemory('cuda', 2), device: 'cuda' })).code).toBe('no-device');
  });

  test('a policy for a GPU on a machine without, a spill folder that is not there', async () => {
    expect((await open({ policy: everythingInMemory('cuda', 2) })).code).toBe('bad-input');
    expect((await open({ spillDirectory: '/nowhere' })).message).toMatch(/\/nowhere/);
  });

  test.each<[string, Partial<Sequence>, RegExp]>([
    ['no tokens', { promptIds: new Int32Array(0) }, /at least one token/],
    ['an unknown token', { promptIds: Int32Array.of(512) }, /0 to 511, got 512/],
    ['too long', { promptIds: new Int32Array(120), maxTokens: 10 }, /128 positions/],
    ['maxTokens', { maxTokens: -1 }, /maxTokens/],
    ['temperature', { temperature: Number.NaN }, /temperature/],
    ['topP', { topP: 0 }, /top_p/],
  ])('a sequence with %s', async (_, changes, message) => {
    const engine = await Engine.open(engineOptions(await fixtureFolder('opt-tiny-fp32'), SHORT));
    const error = await failureOf(engine.run([SHORT[0]!, { ...SHORT[1]!, ...changes }]));
    await engine.close();
    expect(error.code).toBe('bad-input');
    expect(error.message).toMatch(/^sequence 1: /);
    expect(error.message).toMatch(message);
  });
});

describeNative('what a run takes and tells', () => {
  const thirds = { gpu: 0.4, cpu: 0.3, disk: 0.3 };
  const policy = {
    ...everythingInMemory('emulated', 2),
    gpuBatchSize: 3,
    numGpuBatches: 2,
    placement: { weights: thirds, kvCache: thirds, activations: thirds },
    cpuAttentionFraction: 1,
  };
  const sequences = Array.from({ length: 6 }, (_, i) => greedy([2, 5 + i, 9], 5));
  const emulated = { policy, device: 'emulated', linkBytesPerSecond: { cpuToGpu: 1e9, gpuToCpu: 1e9 } } as const;
  const folder = fixtureFolder('opt-tiny-fp16');

  test('caps are exact: what it took suffices, a byte less is refused', async () => {
    const { result } = await runOnce(await folder, sequences, { ...emulated, capacityBytes: { gpu: 64 * MIB } });
    const { peakBytes } = result;
    const again = await runOnce(await folder, sequences, { ...emulated, capacityBytes: peakBytes });
    expect(again.result.peakBytes).toEqual(peakBytes);
    for (const tier of TIERS) {
      const capacityBytes = { ...peakBytes, [tier]: peakBytes[tier] - 1 };
      const error = await failureOf(runOnce(await folder, sequences, { ...emulated, capacityBytes }));
      expect(error.code).toBe(tier === 'disk' ? 'no-disk-space' : 'out-of-memory');
      expect(error.message).toContain(tier);
    }
  });

  test('nothing stays in the spill folder, not even while it runs', async () => {
    const spillDirectory = temporaryFolder();
    const capacityBytes = { gpu: 64 * MIB };
    const options = engineOptions(await folder, sequences, { ...emulated, capacityBytes, spillDirectory });
    const engine = await Engine.open(options);
    const seen = new Set<string>();
    await engine.run(sequences, { onStep: () => readdirSync(spillDirectory).forEach((name) => seen.add(name)) });
    process.kill(engine.pid!, 'SIGKILL');
    await engine.close();
    expect([...seen, ...readdirSync(spillDirectory)]).toEqual([]);
  });

  test('a trace has every task in its place, only when asked', async () => {
    const capacityBytes = { gpu: 64 * MIB };
    const traced = await runOnce(await folder, sequences, { ...emulated, capacityBytes, trace: true });
    const silent = await runOnce(await folder, sequences, { ...emulated, capacityBytes });
    expect(silent.result.trace).toEqual([]);
    const { trace, prefillSeconds, decodeSeconds } = traced.result;
    expect(new Set(trace.map(({ task }) => task))).toEqual(
      new Set(['loadWeights', 'loadKvCache', 'loadActivations', 'compute', 'storeKvCache', 'storeActivations']),
    );
    // 6 schedule layers x 2 GPU batches x 5 steps, none twice.
    const computed = trace.filter(({ task }) => task === 'compute');
    expect(new Set(computed.map(({ step, layer, gpuBatch }) => `${step} ${layer} ${gpuBatch}`)).size).toBe(60);
    expect(computed).toHaveLength(60);
    for (const { startSeconds, endSeconds } of trace) {
      expect(startSeconds).toBeGreaterThanOrEqual(0);
      expect(endSeconds).toBeGreaterThanOrEqual(startSeconds);
      expect(endSeconds).toBeLessThanOrEqual((prefillSeconds + decodeSeconds) * 1.05 + 0.05);
    }
  });
});

describeNative('generate', () => {
  const kjv = openModelFolder(KJV);
  const tokenizer = loadTokenizer(KJV);
  const complete = async (changes: object) =>
    generate({
      folder: await kjv,
      tokenizer: (await tokenizer)!,
      device: 'cpu',
      prompts: ['And the LORD said'],
      ...changes,
    });

  test('end tokens end, or not', async () => {
    const prompts = [[2, 971, 357]];
    const [free] = await complete({ prompts, maxTokens: 60, ignoreEos: true });
    expect(free!.tokenIds).toHaveLength(60);
    // Any token can be made the end.
    const end = free!.tokenIds[10]!;
    const folder = await kjv;
    const ending = { ...folder, model: { ...folder.model, eosTokenIds: [end] } };
    const [ended] = await complete({ folder: ending, prompts, maxTokens: 60 });
    expect(ended!.tokenIds).toEqual(free!.tokenIds.slice(0, free!.tokenIds.indexOf(end)));
    expect(ended!.finishReason).toBe('stop');
  });

  test('stop strings cut the text and stop the work', async () => {
    const [whole] = await complete({ maxTokens: 200 });
    const stop = whole!.text!.slice(12, 17);
    const [cut] = await complete({ maxTokens: 200, stopStrings: [stop] });
    expect(cut!.text).toBe(whole!.text!.slice(0, whole!.text!.indexOf(stop)));
    expect(cut!.finishReason).toBe('stop');
    expect(cut!.tokenIds.length).toBeLessThan(50);
  });

  test('sampling: repeats with a seed, differs without, is greedy at 0', async () => {
    const sampled = async (seed: number) => (await complete({ temperature: 1, seed, maxTokens: 12 }))[0]!.tokenIds;
    expect(await sampled(1)).toEqual(await sampled(1));
    expect(await sampled(1)).not.toEqual(await sampled(2));
    const narrow = await complete({ temperature: 1, topP: 1e-6, maxTokens: 12 });
    expect(narrow[0]!.tokenIds).toEqual((await complete({ maxTokens: 12 }))[0]!.tokenIds);
  });

  test('logits when asked, ids without a tokenizer', async () => {
    const [with2] = await complete({ logitsSteps: 2 });
    expect(with2!.logits!.map((row) => row.length)).toEqual([2048, 2048]);
    const [plain] = await generate({ folder: await kjv, device: 'cpu', prompts: [[2, 5]], maxTokens: 3 });
    expect(plain).not.toHaveProperty('text');
    expect(plain).not.toHaveProperty('logits');
    expect((await failureOf(generate({ folder: await kjv, device: 'cpu', prompts: ['x'] }))).message).toMatch(
      /tokenizer/,
    );
  });
});
