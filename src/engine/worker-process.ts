/** The engine's own process: loads the addon, does what the parent asks, and never outlives it. */
import { loadNative } from './load-native.js';
import type { NativeAddon, NativeEngine, NativeMeasurements, NativeSamples } from './native-addon.js';
import type { ParentMessage, Request, WorkerMessage } from './worker-protocol.js';

let addon: NativeAddon | undefined;
let engine: NativeEngine | undefined;
let closed = false;

function native(): NativeAddon {
  addon ??= loadNative();
  return addon;
}

function send(message: WorkerMessage): void {
  if (process.connected) process.send!(message);
}

async function answer(request: Request): Promise<unknown> {
  switch (request.kind) {
    case 'systemInfo':
      return native().systemInfo();
    case 'measure': {
      const { name, options } = request.argument;
      const measure = native().measure as Record<keyof NativeMeasurements, (options: object) => Promise<NativeSamples>>;
      return measure[name](options);
    }
    case 'open':
      engine = new (native().Engine)(request.argument);
      return engine.open();
    case 'run':
      return engine!.run(request.argument, (event) => send({ kind: 'step', event }));
    case 'close':
      await engine?.close();
      closed = true;
      return undefined;
  }
}

async function handle(message: ParentMessage): Promise<void> {
  if (message.kind === 'cancel') return engine?.cancel();
  if (message.kind === 'cancelSequence') return engine?.cancelSequence(message.sequence);
  try {
    send({ kind: 'result', id: message.id, result: await answer(message) });
  } catch (error) {
    const { code = 'engine', message: text } = error as Error & { code?: string };
    send({ kind: 'error', id: message.id, code, message: text });
  }
}

process.on('message', (message: ParentMessage) => void handle(message));
// The parent is gone. Only with a closed engine are there no native threads that an orderly exit would pull memory from
// under.
process.on('disconnect', () => (closed ? process.exit(0) : process.kill(process.pid, 'SIGKILL')));
// Ctrl-C reaches the whole process group; the parent decides how to end.
process.on('SIGINT', () => undefined);
