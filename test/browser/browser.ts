/**
 * As much of a browser as a planner needs, and nothing of Node: scripts run in realms of their own, with web workers.
 */
import { createContext, runInContext, type Context } from 'node:vm';
import { fileURLToPath } from 'node:url';
import { build, type Rolldown } from 'vite';

/**
 * The script of a page: `entry` and all that it imports, as `const page = ...`. Imports of Node's own modules are
 * refused.
 */
export async function bundleForBrowsers(entry: URL): Promise<string> {
  const result = await build({
    configFile: false,
    logLevel: 'error',
    build: {
      write: false,
      minify: false,
      lib: { entry: fileURLToPath(entry), formats: ['iife'], name: 'page' },
      rolldownOptions: { onwarn: refuse },
    },
  });
  const [{ output }] = result as Rolldown.RolldownOutput[] as [Rolldown.RolldownOutput];
  return output.map((chunk) => ('code' in chunk ? chunk.code : '')).join('\n');
}

function refuse({ message }: { readonly message: string }): never {
  throw new Error(`expected a bundle without a doubt, got: ${message}`);
}

/** A realm with the globals that browsers and their workers share. */
function realm(globals: Readonly<Record<string, unknown>>): Context {
  const context = createContext({ atob, console, performance, queueMicrotask, TextDecoder, TextEncoder, ...globals });
  return Object.assign(context, { self: context });
}

/** Blobs by their address, as `URL.createObjectURL` hands it out. */
class Blobs {
  readonly #texts = new Map<string, string>();

  readonly Blob = class {
    constructor(readonly parts: readonly string[]) {}
  };

  readonly URL = {
    createObjectURL: ({ parts }: { readonly parts: readonly string[] }): string => {
      const address = `blob:${this.#texts.size}`;
      this.#texts.set(address, parts.join(''));
      return address;
    },
    revokeObjectURL: (address: string): boolean => this.#texts.delete(address),
  };

  textAt(address: string): string {
    return this.#texts.get(address)!;
  }
}

type Listener = (event: { readonly data: unknown }) => void;

/** Messages are copied and delivered later, as between threads. */
function workerClass(blobs: Blobs): unknown {
  return class {
    onmessage: Listener | undefined;
    readonly #scope: Context & { onmessage?: Listener };

    constructor(address: string) {
      const postMessage = (data: unknown) => this.#deliver(() => this.onmessage, data);
      const globals = { postMessage, location: { href: address }, WorkerGlobalScope: Object };
      this.#scope = realm(globals);
      runInContext(blobs.textAt(address), this.#scope);
    }

    postMessage(data: unknown): void {
      this.#deliver(() => this.#scope.onmessage, data);
    }

    #deliver(listener: () => Listener | undefined, data: unknown): void {
      const copy: unknown = structuredClone(data);
      queueMicrotask(() => listener()?.({ data: copy }));
    }
  };
}

/** Runs a bundle in a page and returns what its entry exports. */
export function openPage<Exports>(script: string): Exports {
  const blobs = new Blobs();
  const page = realm({ URL: blobs.URL, Blob: blobs.Blob, Worker: workerClass(blobs) });
  return runInContext(`${script}\npage`, page) as Exports;
}
