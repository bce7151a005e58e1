/** The engine as an object: its states, how it ends, and that its process never outlives anyone. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { Engine } from '../../src/engine/engine.js';
import { openModelFolder } from '../../src/engine/model-folder.js';
import { describeNative, engineOptions, failureOf, fixtureFolder, greedy, KJV, ROOT, runOnce } from './native.js';

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
