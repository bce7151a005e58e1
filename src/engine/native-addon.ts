/**
 * The native addon, as TypeScript sees it. Everything is resolved and checked before it crosses; native copies what it
 * gets.
 */
import type { Schedule } from '../policy/policy.js';
import type { Device, Link, StageName, Tier } from '../tiers.js';

/** fp32, fp16 and bf16 as stored in files. */
export type FileDataType = 'float32' | 'float16' | 'bfloat16';

/** The model's shape, flat (see ModelConfig for meanings). */
export interface NativeModel {
  readonly numLayers: number;
  readonly hiddenSize: number;
  readonly ffnSize: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  readonly embeddingSize: number;
  readonly dtype: FileDataType;
  readonly tiedEmbeddings: boolean;
  readonly norm: 'layerNorm' | 'rmsNorm';
  readonly normEpsilon: number;
  readonly normPlacement: 'pre' | 'post';
  readonly finalNorm: boolean;
  readonly positions: 'learned' | 'rope';
  /** Learned positions: row of position 0 in the table. */
  readonly positionOffset: number;
  /** Rope: inverse frequencies, headDim / 2 of them, scaling already applied. */
  readonly ropeInverseFrequencies: Float32Array;
  readonly qkNorm: boolean;
  readonly gatedMlp: boolean;
  readonly activation: 'relu' | 'gelu' | 'geluTanh' | 'silu';
  /** 0: none. */
  readonly slidingWindow: number;
  /** 0: dense. */
  readonly numExperts: number;
  readonly numActiveExperts: number;
  readonly normalizeTopK: boolean;
}

/**
 * One tensor: where its bytes are, and which of its rows live where (rows [0, gpuRows) gpu, the next cpuRows cpu, the
 * rest disk). Vectors have rows = length, cols = 1 and are wholly on the device tier.
 */
export interface NativeTensor {
  /** Schedule layer: 0 embed, 1..numLayers decoder, numLayers + 1 head. */
  readonly layer: number;
  /**
   * Role as in docs/schedule.md; vectors: `qBias`, `attentionNorm`, `attentionNormBias`, `mlpNorm`, `qNorm`,
   * `finalNorm` ...; experts: `experts.3.up`.
   */
  readonly role: string;
  readonly path: string;
  readonly byteOffset: number;
  readonly dtype: FileDataType;
  readonly rows: number;
  readonly cols: number;
  readonly gpuRows: number;
  readonly cpuRows: number;
}

export interface NativeEngineConfig {
  readonly device: Device;
  /** Compute threads; 0: one per core that this process may use. */
  readonly numThreads: number;
  /** Hard caps of the bytes that the engine takes on each tier. */
  readonly capacityBytes: Readonly<Record<Tier, number>>;
  /** Emulated device only. */
  readonly linkBytesPerSecond: { readonly cpuToGpu: number; readonly gpuToCpu: number };
  /** Folder for spill files (unlinked as soon as they are open, so nothing stays behind). */
  readonly spillDirectory: string;
  /** File that keeps 4-bit weights for the next engine; empty: none. */
  readonly quantizationCache: string;
  readonly model: NativeModel;
  readonly tensors: readonly NativeTensor[];
  readonly schedule: Schedule;
  readonly gpuBatchSize: number;
  readonly numGpuBatches: number;
  readonly prefillChunkTokens: number;
  readonly weightBits: 16 | 4;
  readonly kvCacheBits: 16 | 4;
  /** 1: attention reads every row of V. */
  readonly sparseValueFraction: number;
  readonly overlap: boolean;
  /** Per slot of a block: 0 gpu, 1 cpu, 2 disk. Length blockSize. */
  readonly kvTiers: Uint8Array;
  readonly activationTiers: Uint8Array;
  /** Per slot: 1 if its decode attention runs on the CPU although the device is a GPU. */
  readonly cpuAttention: Uint8Array;
  /** Record every task for a trace. */
  readonly trace: boolean;
}

export interface NativeSequence {
  readonly promptIds: Int32Array;
  /** At most so many tokens are generated; 0: only score the prompt. */
  readonly maxTokens: number;
  /** 0: greedy. */
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number;
  /** Generation ends after one of these (it is not part of the result). */
  readonly stopIds: Int32Array;
  /** Keep the logits of the first so many generated positions. */
  readonly logitsSteps: number;
  /** Return the log-probability of each prompt token but the first. */
  readonly scorePrompt: boolean;
}

export type StageSeconds = Record<StageName, number>;
export type LinkBytes = Record<Link, number>;
export type BytesPerTier = Record<Tier, number>;

/** Tokens of one step, sent as they come: parallel arrays. A sequence that has ended comes with its finish reason. */
export interface NativeStepEvent {
  readonly block: number;
  readonly step: number;
  readonly sequences: Int32Array;
  readonly tokenIds: Int32Array;
  /** Sequences that ended at this step. */
  readonly finished: readonly { readonly sequence: number; readonly finishReason: 'stop' | 'length' | 'cancelled' }[];
}

export interface NativeSequenceResult {
  readonly tokenIds: Int32Array;
  readonly finishReason: 'stop' | 'length' | 'cancelled';
  readonly logits: readonly Float32Array[];
  readonly promptLogProbs?: Float32Array;
}

/** One entry of the trace; times in seconds since the start of the run. */
export interface NativeTraceEvent {
  readonly task: 'loadWeights' | 'loadKvCache' | 'loadActivations' | 'compute' | 'storeKvCache' | 'storeActivations';
  readonly startSeconds: number;
  readonly endSeconds: number;
  readonly block: number;
  readonly step: number;
  readonly layer: number;
  readonly gpuBatch: number;
}

export interface NativeRunResult {
  readonly sequences: readonly NativeSequenceResult[];
  readonly numBlocks: number;
  /** Prompt tokens that were not computed, because another prompt of their chunk begins with them. */
  readonly sharedPrefixTokens: number;
  readonly prefillSeconds: number;
  readonly decodeSeconds: number;
  /** Busy seconds per stage. */
  readonly stageSeconds: { readonly prefill: StageSeconds; readonly decode: StageSeconds };
  readonly trafficBytes: { readonly prefill: LinkBytes; readonly decode: LinkBytes };
  readonly peakBytes: BytesPerTier;
  /** Reserved for the largest block. */
  readonly kvCacheBytes: BytesPerTier;
  readonly activationBytes: BytesPerTier;
  readonly trace: readonly NativeTraceEvent[];
}

/**
 * Rejections and throws are Errors with `code` one of ErrorCode's `out-of-memory`, `no-disk-space`, `bad-input`,
 * `no-device`, `engine`.
 */
export interface NativeEngine {
  /** Takes the arenas and loads the weights. Resolves with the weight bytes on each tier (vectors included). */
  open(): Promise<{ readonly weightBytes: BytesPerTier }>;
  /** Runs all sequences, block after block. One run at a time. */
  run(sequences: readonly NativeSequence[], onStep: (event: NativeStepEvent) => void): Promise<NativeRunResult>;
  /** Ends one sequence of the run in flight at its next step. */
  cancelSequence(sequence: number): void;
  /** Ends the run in flight; it resolves with what there is (`cancelled`). */
  cancel(): void;
  /** Idempotent; cancels a run in flight and waits for it. */
  close(): Promise<void>;
}

/** Seconds of each repetition, so that the caller takes median and spread. Nothing is cached between repetitions. */
export interface NativeSamples {
  readonly seconds: Float64Array;
  /** Work of one repetition: bytes moved, FLOPs, launches or tasks. */
  readonly work: number;
}

/** What computes; absent: the CPU. Of a GPU, seconds are those of one operation among many that are queued together. */
interface OnDevice {
  readonly device?: 'cpu' | 'cuda';
}

export interface NativeMeasurements {
  /**
   * The CPU reads `bytes`; a GPU copies them inside its memory, which is twice the work. work = bytes read and written.
   */
  memoryRead(options: OnDevice & { bytes: number; repetitions: number; numThreads: number }): Promise<NativeSamples>;
  /**
   * One launch of `tokens` rows against weight matrices [rows, cols], rotating over enough of them to defeat the
   * caches. work = FLOPs.
   */
  matmul(
    options: OnDevice & {
      tokens: number;
      rows: number;
      cols: number;
      dtype: FileDataType;
      weightBits: 16 | 4;
      repetitions: number;
      numThreads: number;
    },
  ): Promise<NativeSamples>;
  /** Prefill: work = FLOPs; decode: work = KV bytes read. */
  attention(
    options: OnDevice & {
      phase: 'prefill' | 'decode';
      sequences: number;
      tokens: number;
      numHeads: number;
      numKvHeads: number;
      headDim: number;
      dtype: FileDataType;
      kvCacheBits: 16 | 4;
      repetitions: number;
      numThreads: number;
    },
  ): Promise<NativeSamples>;
  /**
   * What parallel loops cost beyond their work: many in a row, or with a pause one after the threads have parked, as
   * when a task has waited for its inputs. work = launches.
   */
  launch(options: OnDevice & { pauseSeconds: number; repetitions: number; numThreads: number }): Promise<NativeSamples>;
  /** A task handed from one scheduler thread to another and back; work = hand-overs of one repetition. */
  task(options: { repetitions: number }): Promise<NativeSamples>;
  /** Direct reads of `requestBytes` at a time, as the engine does them, page cache out of the way. work = bytes. */
  diskRead(options: {
    directory: string;
    fileBytes: number;
    requestBytes: number;
    repetitions: number;
  }): Promise<NativeSamples>;
  diskWrite(options: {
    directory: string;
    fileBytes: number;
    requestBytes: number;
    repetitions: number;
  }): Promise<NativeSamples>;
  /** The engine's own copy between arenas (emulated: paced). work = bytes. */
  linkCopy(options: {
    device: Device;
    link: 'cpuToGpu' | 'gpuToCpu';
    linkBytesPerSecond: number;
    bytes: number;
    repetitions: number;
  }): Promise<NativeSamples>;
}

export interface NativeCudaDevice {
  readonly name: string;
  /** 10 x major + minor: 90 is a Hopper. */
  readonly computeCapability: number;
  readonly totalBytes: number;
  /** Free now, of the one that is used. */
  readonly freeBytes?: number;
}

export interface NativeSystemInfo {
  readonly cpuName: string;
  /** Kernel set in use (`generic`, `avx2`, `avx512`, `avx512-vnni`, `avx512-bf16`) and all that this machine has. */
  readonly isa: string;
  readonly isas: readonly string[];
  /** Whether the engine was built with CUDA. */
  readonly hasCuda: boolean;
  /** GPUs that the driver shows; the first is the one that is used. */
  readonly cudaDevices: readonly NativeCudaDevice[];
}

export interface NativeAddon {
  readonly Engine: new (config: NativeEngineConfig) => NativeEngine;
  readonly measure: NativeMeasurements;
  systemInfo(): NativeSystemInfo;
}
