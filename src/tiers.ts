/** The machine's places and paths, the words that every module shares. */

/** A place where bytes live. */
export type Tier = 'gpu' | 'cpu' | 'disk';
/** A directed tier pair. */
export type Link = 'cpuToGpu' | 'gpuToCpu' | 'diskToCpu' | 'cpuToDisk';
/** What computes. `emulated`: a CPU-backed GPU with a capped arena and rate-limited links. */
export type Device = 'cuda' | 'cpu' | 'emulated';
export type Phase = 'prefill' | 'decode';
/** Where time goes: computing on the device, attention on the CPU beside it, and the four links. */
export type StageName = 'compute' | 'cpuAttention' | Link;

export const TIERS: readonly Tier[] = ['gpu', 'cpu', 'disk'];
export const LINKS: readonly Link[] = ['cpuToGpu', 'gpuToCpu', 'diskToCpu', 'cpuToDisk'];
export const STAGES: readonly StageName[] = ['compute', 'cpuAttention', ...LINKS];
