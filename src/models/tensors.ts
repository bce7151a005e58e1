/** The tensors of each schedule layer, in the order in which docs/schedule.md lays them out, and their sizes. */
import { BYTES_PER_ELEMENT, type ModelConfig } from './model-config.js';

/** A model has `numLayers + 2` schedule layers: `embed`, its decoder layers, `head`. */
export type LayerKind = 'embed' | 'decoder' | 'head';
export const LAYER_KINDS: readonly LayerKind[] = ['embed', 'decoder', 'head'];

/**
 * `matrix`: multiplied, so streamed to the device. `table`: read by row, wherever the row lies. `vector`: stays on the
 * device tier in fp32.
 */
type TensorKind = 'matrix' | 'table' | 'vector';

/** Shape `[rows, cols]` as in the file (`[out, in]`); vectors: `[length, 1]`. */
export interface TensorSpec {
  readonly role: string;
  readonly kind: TensorKind;
  readonly rows: number;
  readonly cols: number;
  /** Whether `weightBits` 4 packs it. */
  readonly quantizable: boolean;
}

export type WeightBits = 16 | 4;

/** A group: fp16 scale, fp16 minimum, 64 nibbles. */
export const VALUES_PER_QUANT_GROUP = 64;
const BYTES_PER_QUANT_GROUP = 36;
const BYTES_PER_VECTOR_ELEMENT = 4;

const matrix = (role: string, rows: number, cols: number): TensorSpec => ({
  role,
  kind: 'matrix',
  rows,
  cols,
  quantizable: true,
});
const table = (role: string, rows: number, cols: number): TensorSpec => ({
  role,
  kind: 'table',
  rows,
  cols,
  quantizable: false,
});
const vector = (role: string, rows: number): TensorSpec => ({
  role,
  kind: 'vector',
  rows,
  cols: 1,
  quantizable: false,
});

/**
 * The tensors of one schedule layer: matrices and tables in placement order, then vectors. All decoder layers are
 * alike.
 */
export function layerTensors(model: ModelConfig, kind: LayerKind): readonly TensorSpec[] {
  let layers = tensorsOfModel.get(model);
  if (!layers) {
    const decoder = [...decoderMatrices(model), ...decoderVectors(model)];
    layers = { embed: embedTensors(model), decoder, head: headTensors(model) };
    tensorsOfModel.set(model, layers);
  }
  return layers[kind];
}

/** A mixture has hundreds of tensors a layer and the cost model asks for them again and again. */
const tensorsOfModel = new WeakMap<ModelConfig, Readonly<Record<LayerKind, readonly TensorSpec[]>>>();

/** How many schedule layers of this kind the model has. */
export function layerCount(model: ModelConfig, kind: LayerKind): number {
  return kind === 'decoder' ? model.numLayers : 1;
}

/** Bytes of one row. 4-bit: the row is padded to whole groups. Vectors: fp32. */
export function rowBytes(model: ModelConfig, tensor: TensorSpec, weightBits: WeightBits): number {
  if (tensor.kind === 'vector') return BYTES_PER_VECTOR_ELEMENT;
  if (weightBits === 4 && tensor.quantizable) return quantizedBytes(tensor.cols);
  return tensor.cols * BYTES_PER_ELEMENT[model.dtype];
}

/** Bytes of `values` consecutive values, packed in 4-bit groups. */
export function quantizedBytes(values: number): number {
  return Math.ceil(values / VALUES_PER_QUANT_GROUP) * BYTES_PER_QUANT_GROUP;
}

/** Bytes of the K and V rows that one token keeps in one layer. 4-bit: each head is padded to whole groups. */
export function kvRowBytes(model: ModelConfig, kvCacheBits: 16 | 4): number {
  const headBytes = kvCacheBits === 4 ? quantizedBytes(model.headDim) : model.headDim * BYTES_PER_ELEMENT[model.dtype];
  return 2 * model.numKvHeads * headBytes;
}

/** Bytes of one token's hidden state between schedule layers. */
export function hiddenBytes(model: ModelConfig): number {
  return model.hiddenSize * BYTES_PER_ELEMENT[model.dtype];
}

/** All parameters, embeddings and vectors included; a tied head counts once. */
export function parameterCount(model: ModelConfig): number {
  const ofLayer = (kind: LayerKind) =>
    layerTensors(model, kind).reduce((sum, tensor) => sum + tensor.rows * tensor.cols, 0);
  return LAYER_KINDS.reduce((sum, kind) => sum + layerCount(model, kind) * ofLayer(kind), 0);
}

function embedTensors(model: ModelConfig): TensorSpec[] {
  const { embeddingSize, hiddenSize, positions } = model;
  return [
    ...(model.tiedEmbeddings ? [] : [table('tokenEmbedding', model.vocabSize, embeddingSize)]),
    ...(positions.kind === 'learned'
      ? [table('positionEmbedding', model.maxPositions + positions.offset, hiddenSize)]
      : []),
    ...(embeddingSize === hiddenSize ? [] : [matrix('projectIn', hiddenSize, embeddingSize)]),
  ];
}

function headTensors(model: ModelConfig): TensorSpec[] {
  const { embeddingSize, hiddenSize } = model;
  return [
    ...(embeddingSize === hiddenSize ? [] : [matrix('projectOut', embeddingSize, hiddenSize)]),
    matrix('head', model.vocabSize, embeddingSize),
    ...(model.finalNorm ? norm(model, 'finalNorm', hiddenSize) : []),
  ];
}

function decoderMatrices(model: ModelConfig): TensorSpec[] {
  const { hiddenSize, headDim, numHeads, numKvHeads } = model;
  const attention = [
    matrix('q', numHeads * headDim, hiddenSize),
    matrix('k', numKvHeads * headDim, hiddenSize),
    matrix('v', numKvHeads * headDim, hiddenSize),
    matrix('o', hiddenSize, numHeads * headDim),
  ];
  if (!model.experts) return [...attention, ...mlpMatrices(model, '')];
  const router: TensorSpec = { ...matrix('router', model.experts.count, hiddenSize), quantizable: false };
  const experts = Array.from({ length: model.experts.count }, (_, n) => mlpMatrices(model, `experts.${n}.`));
  return [...attention, router, ...experts.flat()];
}

function mlpMatrices(model: ModelConfig, prefix: string): TensorSpec[] {
  const { ffnSize, hiddenSize } = model;
  return [
    ...(model.gatedMlp ? [matrix(`${prefix}gate`, ffnSize, hiddenSize)] : []),
    matrix(`${prefix}up`, ffnSize, hiddenSize),
    matrix(`${prefix}down`, hiddenSize, ffnSize),
  ];
}

function decoderVectors(model: ModelConfig): TensorSpec[] {
  const { hiddenSize, ffnSize, headDim } = model;
  const kvSize = model.numKvHeads * headDim;
  return [
    ...norm(model, 'attentionNorm', hiddenSize),
    ...(model.qkvBias
      ? [vector('qBias', model.numHeads * headDim), vector('kBias', kvSize), vector('vBias', kvSize)]
      : []),
    ...(model.outputBias ? [vector('oBias', hiddenSize)] : []),
    ...(model.qkNorm ? [vector('qNorm', headDim), vector('kNorm', headDim)] : []),
    ...norm(model, 'mlpNorm', hiddenSize),
    ...(model.mlpBias && model.gatedMlp ? [vector('gateBias', ffnSize)] : []),
    ...(model.mlpBias ? [vector('upBias', ffnSize), vector('downBias', hiddenSize)] : []),
  ];
}

function norm(model: ModelConfig, role: string, size: number): TensorSpec[] {
  return [vector(role, size), ...(model.norm === 'layerNorm' ? [vector(`${role}Bias`, size)] : [])];
}
