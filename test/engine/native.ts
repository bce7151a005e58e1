/** What the tests that need the built engine share. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe } from 'vitest';
import { Engine, type EngineOptions, type RunResult, type Sequence } from '../../src/engine/engine.js';
import { FlexplanError } from '../../src/errors.js';
import { everythingInMemory } from '../../src/engine/default-policy.js';
import { withInstruments } from '../../src/engine/instruments.js';
import type { NativeSystemInfo } from '../../src/engine/native-addon.js';
import { lengthOf } from '../../src/engine/generate.js';
import { greedySequence } from '../../src/engine/sequences.js';
import { type ModelFolder, openModelFolder } from '../../src/engine/model-folder.js';
import type { Policy } from '../../src/policy/policy.js';
import { workloadFromSequences } from '../../src/workload/blocks.js';
import type { Workload } from '../../src/workload/workload.js';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));
export const KJV = `${ROOT}examples/opt-kjv-5m`;

const built = existsSync(`${ROOT}build/Release/flexplan.node`) && existsSync(`${ROOT}dist/engine/worker-process.js`);
if (!built) console.warn('skipped: the native engine is not built (npm run setup builds it)');

/** What the addon says of this machine; nothing where it is not built. */
export async function systemInfo(): Promise<Pick<NativeSystemInfo, 'isa' | 'isas' | 'cudaDevices'>> {
  return built
    ? withInstruments((instruments) => instruments.systemInfo())
    : { isa: 'none', isas: [], cudaDevices: [] };
}

/** `describe`, skipped where the engine is not built. */
export const describeNative = describe.skipIf(!built);

export const fixtureFolder = (name: string): Promise<ModelFolder> => openModelFolder(`${ROOT}test/fixtures/${name}`);

export function readJson<T>(path: string): T {
  return JSON.parse(readFileSync(path, 'utf8')) as T;
}

/** Token ids from a file of little-endian 16-bit numbers. */
export function tokenIds(path: string): number[] {
  const bytes = readFileSync(path);
  return Array.from({ length: bytes.length / 2 }, (_, i) => bytes.readUInt16LE(2 * i));
}

export function greedy(promptIds: readonly number[], maxTokens: number, changes: Partial<Sequence> = {}): Sequence {
  return { ...greedySequence(promptIds, maxTokens), ...changes };
}

/** A policy on a device whose links are fast, if it is an emulated GPU. */
export function onDevice(device: EngineOptions['device'], policy: Policy, workload: Workload): Partial<EngineOptions> {
  return {
    device,
    policy,
    workload,
    capacityBytes: { gpu: 1e9 },
    linkBytesPerSecond: { cpuToGpu: 5e9, gpuToCpu: 5e9 },
  };
}

/** Everything in memory on the CPU, unless changed. */
export function engineOptions(
  folder: ModelFolder,
  sequences: readonly Sequence[],
  changes: Partial<EngineOptions> = {},
): EngineOptions {
  const workload = workloadFromSequences(sequences.map(lengthOf));
  const policy = everythingInMemory('cpu', sequences.length);
  return { folder, policy, workload, device: 'cpu', numThreads: 2, ...changes };
}

/** Opens, runs and closes an engine. */
export async function runOnce(
  folder: ModelFolder,
  sequences: readonly Sequence[],
  changes: Partial<EngineOptions> = {},
): Promise<{ engine: Engine; result: RunResult }> {
  const engine = await Engine.open(engineOptions(folder, sequences, changes));
  try {
    return { engine, result: await engine.run(sequences) };
  } finally {
    await engine.close();
  }
}

/** The error of a promise that must fail with one of ours. */
export async function failureOf(promise: Promise<unknown>): Promise<FlexplanError> {
  const outcome = await promise.then(
    () => undefined,
    (error: unknown) => error,
  );
  if (!(outcome instanceof FlexplanError)) throw new Error('expected a FlexplanError', { cause: outcome });
  return outcome;
}
