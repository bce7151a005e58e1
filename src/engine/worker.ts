/** The parent's end of the engine's process: requests and their answers, and what its death means. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type ErrorCode, FlexplanError } from '../errors.js';
import type { NativeStepEvent } from './native-addon.js';
import type { CallKind, ParentMessage, WorkerCalls, WorkerMessage } from './worker-protocol.js';

/** Both src/engine and dist/engine lie two folders below the package; a process can run the compiled one alone. */
const WORKER_PATH = fileURLToPath(new URL('../../dist/engine/worker-process.js', import.meta.url));

/** An engine that does not finish its step in this time after `close` is killed. */
const CLOSE_SECONDS = 20;

interface Pending {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: FlexplanError) => void;
}

const KNOWN_CODES: ReadonlySet<string> = new Set<ErrorCode>([
  'out-of-memory',
  'no-disk-space',
  'bad-input',
  'unsupported',
  'no-device',
  'native-missing',
]);

export class Worker {
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, Pending>();
  readonly #exited: Promise<void>;
  #nextId = 0;
  #death: FlexplanError | undefined;
  #closing: Promise<void> | undefined;
  /** Called for each step of the run in flight. */
  onStep: ((event: NativeStepEvent) => void) | undefined;

  constructor() {
    // Standard output is the parent's document; whatever the child prints goes to standard error.
    this.#child = fork(WORKER_PATH, [], { serialization: 'advanced', execArgv: [], stdio: ['ignore', 2, 2, 'ipc'] });
    this.#child.on('message', (message) => this.#receive(message as WorkerMessage));
    this.#exited = new Promise((resolve) => {
      this.#child.once('error', (error) => {
        this.#die(new FlexplanError('engine-died', `expected to start the engine's process, got ${error.message}`));
        resolve();
      });
      this.#child.once('exit', (code, signal) => {
        this.#die(deathOf(code, signal));
        resolve();
      });
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  async call<K extends CallKind>(kind: K, argument: WorkerCalls[K]['argument']): Promise<WorkerCalls[K]['result']> {
    if (this.#death) throw this.#death;
    const id = this.#nextId++;
    return new Promise<WorkerCalls[K]['result']>((resolve, reject) => {
      this.#pending.set(id, { resolve: resolve as Pending['resolve'], reject });
      this.send({ kind, id, argument } as ParentMessage);
    });
  }

  /** A process that is no longer there hears nothing; its pending calls fail by its exit. */
  send(message: ParentMessage): void {
    if (this.#child.connected) this.#child.send(message, () => undefined);
  }

  kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    return this.#exited;
  }

  /** Idempotent. Lets the engine end its run and free what it holds, then waits until the process is gone. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const deadline = setTimeout(() => this.#child.kill('SIGKILL'), CLOSE_SECONDS * 1e3);
    // A process that died has nothing left to close.
    await this.call('close', undefined).catch(() => undefined);
    if (this.#child.connected) this.#child.disconnect();
    await this.#exited;
    clearTimeout(deadline);
  }

  #receive(message: WorkerMessage): void {
    if (message.kind === 'step') {
      this.onStep?.(message.event);
      return;
    }
    const pending = this.#pending.get(message.id);
    this.#pending.delete(message.id);
    if (message.kind === 'result') pending?.resolve(message.result);
    else pending?.reject(errorOf(message.code, message.message));
  }

  #die(death: FlexplanError): void {
    this.#death ??= death;
    for (const { reject } of this.#pending.values()) reject(this.#death);
    this.#pending.clear();
  }
}

function errorOf(code: string, message: string): FlexplanError {
  return new FlexplanError(KNOWN_CODES.has(code) ? (code as ErrorCode) : 'engine', message);
}

const SIGNAL_CAUSES: Readonly<Record<string, string>> = {
  SIGKILL: 'most likely the system ran out of memory; lower --cpu-memory, or close other programs',
  SIGTERM: 'someone ended it; run the job again',
  SIGILL:
    'the CPU lacks an instruction that the engine was built with; build it on this machine with `npm run build:native`',
  SIGBUS: 'a model file changed or its disk failed while it was read; check the model folder',
};

function deathOf(code: number | null, signal: NodeJS.Signals | null): FlexplanError {
  const how = signal ? `signal ${signal}` : `exit status ${code}`;
  const cause =
    (signal && SIGNAL_CAUSES[signal]) || 'a fault in the engine; please report it with the command that led here';
  return new FlexplanError('engine-died', `expected the engine's process to run on, got its end by ${how}: ${cause}`);
}
