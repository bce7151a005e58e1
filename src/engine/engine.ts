/** A loaded model that runs sequences under one policy, in a process of its own. */
import { statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { FlexplanError } from '../errors.js';
import type { Policy } from '../policy/policy.js';
import { realise, type Realisation } from '../policy/realisation.js';
import { type Device, type Tier, TIERS } from '../tiers.js';
import { formatBytes } from '../units.js';
import type { Workload } from '../workload/workload.js';
import { hostLimits } from './host-limits.js';
import type { ModelFolder } from './model-folder.js';
import type { BytesPerTier, NativeRunResult, NativeSequence, NativeStepEvent } from './native-addon.js';
import { type EngineResources, nativeEngineConfig } from './native-config.js';
import { quantizationCachePath, type QuantizationCacheOptions } from './quantization-cache.js';
import { checkSequences } from './sequences.js';
import { Worker } from './worker.js';

export interface EngineOptions {
  readonly folder: ModelFolder;
  readonly policy: Policy;
  /** The lengths that the policy is realised for. */
  readonly workload: Workload;
  readonly device: Device;
  /** Hard caps of what the engine takes. Absent: memory that is free now, and the free space of `spillDirectory`. */
  readonly capacityBytes?: Partial<Readonly<Record<Tier, number>>>;
  /** Emulated device only, where both are required. */
  readonly linkBytesPerSecond?: { readonly cpuToGpu: number; readonly gpuToCpu: number };
  /** Compute threads. Absent or 0: one per CPU that this process may use. */
  readonly numThreads?: number;
  /** Where KV cache, activations and 4-bit weights of the disk tier go. Absent: the system's temporary folder. */
  readonly spillDirectory?: string;
  /**
   * How 4-bit weights are kept from one engine to the next; false: not at all. Absent: in a file beside the model,
   * where that is worth it and there is room.
   */
  readonly quantizationCache?: QuantizationCacheOptions | false;
  /** Record every task. Absent: false. */
  readonly trace?: boolean;
  readonly signal?: AbortSignal;
}

export type Sequence = NativeSequence;
export type StepEvent = NativeStepEvent;
export type RunResult = NativeRunResult;

export interface RunOptions {
  /** Sees every step. If it throws, the run ends at its next step and rejects with what was thrown. */
  readonly onStep?: (event: StepEvent) => void;
  /** Aborting ends the run at its next step; `run` then rejects with `interrupted`. */
  readonly signal?: AbortSignal;
}

export class Engine {
  readonly #worker: Worker;
  readonly #folder: ModelFolder;
  #running = false;
  #closed = false;

  private constructor(
    worker: Worker,
    folder: ModelFolder,
    /** What was placed where. */
    readonly realisation: Realisation,
    /** Weight bytes that the engine holds on each tier, vectors included: equal to the realisation's. */
    readonly weightBytes: BytesPerTier,
  ) {
    this.#worker = worker;
    this.#folder = folder;
  }

  /** Starts the process, takes the memory and loads the weights. */
  static async open(options: EngineOptions): Promise<Engine> {
    const { folder, policy, workload, device, signal } = options;
    const realisation = realise(folder.model, policy, workload, device);
    const config = nativeEngineConfig(folder, policy, realisation, await resources(options));
    signalled(signal);
    const worker = new Worker();
    const abort = () => void worker.kill();
    signal?.addEventListener('abort', abort, { once: true });
    try {
      const { weightBytes } = await worker.call('open', config);
      checkPlaced(realisation.bytes.weights, weightBytes);
      return new Engine(worker, folder, realisation, weightBytes);
    } catch (error) {
      await worker.kill();
      signalled(signal);
      throw error;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  /** The process that holds the model. */
  get pid(): number | undefined {
    return this.#worker.pid;
  }

  /** Runs all sequences in order, block after block. One run at a time. */
  async run(sequences: readonly Sequence[], { onStep, signal }: RunOptions = {}): Promise<RunResult> {
    this.#checkIdle();
    checkSequences(this.#folder.model, sequences);
    signalled(signal);
    const cancel = () => this.cancel();
    signal?.addEventListener('abort', cancel, { once: true });
    this.#running = true;
    let failure: { readonly error: unknown } | undefined;
    this.#worker.onStep = (event) => {
      if (failure) return;
      try {
        onStep?.(event);
      } catch (error) {
        failure = { error };
        this.cancel();
      }
    };
    try {
      const result = await this.#worker.call('run', sequences);
      if (failure) throw failure.error;
      signalled(signal);
      return result;
    } finally {
      this.#running = false;
      this.#worker.onStep = undefined;
      signal?.removeEventListener('abort', cancel);
    }
  }

  /** Ends one sequence of the run in flight (`cancelled`); the others go on. Does nothing when none is in flight. */
  cancelSequence(sequence: number): void {
    if (this.#running) this.#worker.send({ kind: 'cancelSequence', sequence });
  }

  /** Ends the run in flight, which resolves with what there is. Does nothing when none is in flight. */
  cancel(): void {
    if (this.#running) this.#worker.send({ kind: 'cancel' });
  }

  /** Idempotent. Cancels a run in flight, frees everything and waits until the process is gone. */
  close(): Promise<void> {
    this.#closed = true;
    return this.#worker.close();
  }

  #checkIdle(): void {
    if (this.#closed)
      throw new FlexplanError('usage', 'expected an open engine, got one that was closed; open another');
    if (this.#running)
      throw new FlexplanError('usage', 'expected an idle engine, got one with a run in flight; await it');
  }
}

function signalled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new FlexplanError('interrupted', 'interrupted before the job was done');
}

async function resources(options: EngineOptions): Promise<EngineResources> {
  const { device, capacityBytes = {}, linkBytesPerSecond, spillDirectory = tmpdir() } = options;
  if (device === 'emulated' && (capacityBytes.gpu === undefined || !linkBytesPerSecond)) {
    throw new FlexplanError(
      'usage',
      'expected the memory and link rates of the emulated device, got none; give --gpu-memory and --link-bandwidth',
    );
  }
  const { bavail, bsize } = await statfs(spillDirectory).catch(() => {
    throw new FlexplanError('bad-input', `expected a folder for spill files, got "${spillDirectory}"; create it`);
  });
  const limits = hostLimits();
  return {
    device,
    numThreads: options.numThreads || limits.cpus,
    capacityBytes: {
      // Without a cap, cuda takes what the device has: only its driver knows.
      gpu: capacityBytes.gpu ?? (device === 'cuda' ? Number.MAX_SAFE_INTEGER : 0),
      cpu: capacityBytes.cpu ?? limits.availableMemoryBytes,
      disk: capacityBytes.disk ?? bavail * bsize,
    },
    linkBytesPerSecond: linkBytesPerSecond ?? { cpuToGpu: 0, gpuToCpu: 0 },
    spillDirectory,
    quantizationCache: await cachePath(options),
    trace: options.trace ?? false,
  };
}

/** A cap of the disk tier is one of the cache, too. */
async function cachePath({ folder, policy, quantizationCache = {}, capacityBytes }: EngineOptions): Promise<string> {
  if (policy.weightBits !== 4 || quantizationCache === false) return '';
  const limitBytes = Math.min(quantizationCache.limitBytes ?? Infinity, capacityBytes?.disk ?? Infinity);
  return quantizationCachePath(folder, { ...quantizationCache, limitBytes });
}

/** The plan is what is placed: a difference is a fault of ours, not a silence. */
function checkPlaced(planned: BytesPerTier, placed: BytesPerTier): void {
  const tier = TIERS.find((t) => planned[t] !== placed[t]);
  if (tier) {
    throw new FlexplanError(
      'engine',
      `expected ${formatBytes(planned[tier])} of weights on the ${tier} tier as planned (${planned[tier]} bytes), got ${placed[tier]} bytes; please report this`,
    );
  }
}
