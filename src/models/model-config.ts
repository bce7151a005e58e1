/** What is computed: the shape of a decoder-only transformer, independent of any file format. */

/** Number format in which weights, KV cache and activations of a 16-bit (or fp32) run are stored. */
export type DataType = 'float32' | 'float16' | 'bfloat16';

export const BYTES_PER_ELEMENT: Readonly<Record<DataType, number>> = { float32: 4, float16: 2, bfloat16: 2 };
/** Every device computes in fp32. */
export const FLOAT_BYTES = BYTES_PER_ELEMENT.float32;

/** Llama 3.1 rotary scaling. */
export interface Llama3RopeScaling {
  readonly kind: 'llama3';
  readonly factor: number;
  readonly lowFreqFactor: number;
  readonly highFreqFactor: number;
  readonly originalMaxPositions: number;
}

export interface LinearRopeScaling {
  readonly kind: 'linear';
  readonly factor: number;
}

export type Positions =
  | { readonly kind: 'learned'; readonly offset: number }
  | { readonly kind: 'rope'; readonly theta: number; readonly scaling?: Llama3RopeScaling | LinearRopeScaling };

export interface Experts {
  readonly count: number;
  readonly activePerToken: number;
  /** Whether the routing weights of the chosen experts are renormalised to sum to 1. */
  readonly normalizeTopK: boolean;
}

export interface ModelConfig {
  readonly name: string;
  /** `model_type` of the Hugging Face config. */
  readonly family: string;
  readonly dtype: DataType;
  readonly numLayers: number;
  readonly hiddenSize: number;
  /** Inner size of the MLP (of one expert in a mixture). */
  readonly ffnSize: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  readonly maxPositions: number;
  /** Width of the token embedding; differs from hiddenSize in OPT-350m, which projects in and out. */
  readonly embeddingSize: number;
  readonly tiedEmbeddings: boolean;
  readonly norm: 'layerNorm' | 'rmsNorm';
  readonly normEpsilon: number;
  /** Normalise before each sub-layer (all but OPT-350m) or after its residual sum. */
  readonly normPlacement: 'pre' | 'post';
  readonly finalNorm: boolean;
  readonly positions: Positions;
  readonly qkvBias: boolean;
  readonly outputBias: boolean;
  readonly mlpBias: boolean;
  /** RMS norm over each head of q and k (Qwen3). */
  readonly qkNorm: boolean;
  readonly gatedMlp: boolean;
  readonly activation: 'relu' | 'gelu' | 'geluTanh' | 'silu';
  /** Tokens that a query attends to, itself included; absent: all. */
  readonly slidingWindow?: number;
  readonly experts?: Experts;
  readonly bosTokenId?: number;
  readonly eosTokenIds: readonly number[];
}
