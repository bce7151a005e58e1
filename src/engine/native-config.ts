/** Everything resolved: model, files, policy and caps -> the flat description that crosses to the native engine. */
import type { ModelConfig } from '../models/model-config.js';
import { prefillChunkTokens, type Policy } from '../policy/policy.js';
import type { Realisation, TensorPlacement } from '../policy/realisation.js';
import { type Device, type Tier, TIERS } from '../tiers.js';
import { fileDataType, type ModelFolder } from './model-folder.js';
import type { NativeEngineConfig, NativeModel, NativeTensor } from './native-addon.js';
import { ropeInverseFrequencies } from './rope.js';
import { layerKind } from './tensor-names.js';

/** What a run may take of the machine. */
export interface EngineResources {
  readonly device: Device;
  readonly numThreads: number;
  readonly capacityBytes: Readonly<Record<Tier, number>>;
  readonly linkBytesPerSecond: { readonly cpuToGpu: number; readonly gpuToCpu: number };
  readonly spillDirectory: string;
  readonly quantizationCache: string;
  readonly trace: boolean;
}

export function nativeEngineConfig(
  folder: ModelFolder,
  policy: Policy,
  realisation: Realisation,
  resources: EngineResources,
): NativeEngineConfig {
  const { kvCache, activations } = realisation.slots;
  return {
    ...resources,
    model: nativeModel(folder.model),
    tensors: nativeTensors(folder, realisation),
    schedule: policy.schedule ?? 'zigzag',
    gpuBatchSize: policy.gpuBatchSize,
    numGpuBatches: policy.numGpuBatches,
    prefillChunkTokens: prefillChunkTokens(policy),
    weightBits: policy.weightBits,
    kvCacheBits: policy.kvCacheBits,
    sparseValueFraction: policy.sparseValueFraction ?? 1,
    overlap: policy.overlap,
    kvTiers: perSlot(kvCache, ({ tier }) => TIERS.indexOf(tier)),
    activationTiers: perSlot(activations, ({ tier }) => TIERS.indexOf(tier)),
    cpuAttention: perSlot(kvCache, ({ cpuAttention }) => Number(cpuAttention)),
  };
}

/** Runs of slots alike -> a number for each slot. */
function perSlot<Run extends { readonly first: number; readonly end: number }>(
  runs: readonly Run[],
  value: (run: Run) => number,
): Uint8Array {
  const numbers = new Uint8Array(runs.at(-1)!.end);
  for (const run of runs) numbers.fill(value(run), run.first, run.end);
  return numbers;
}

function nativeModel(model: ModelConfig): NativeModel {
  const { positions, experts } = model;
  return {
    numLayers: model.numLayers,
    hiddenSize: model.hiddenSize,
    ffnSize: model.ffnSize,
    numHeads: model.numHeads,
    numKvHeads: model.numKvHeads,
    headDim: model.headDim,
    vocabSize: model.vocabSize,
    embeddingSize: model.embeddingSize,
    dtype: model.dtype,
    tiedEmbeddings: model.tiedEmbeddings,
    norm: model.norm,
    normEpsilon: model.normEpsilon,
    normPlacement: model.normPlacement,
    finalNorm: model.finalNorm,
    positions: positions.kind,
    positionOffset: positions.kind === 'learned' ? positions.offset : 0,
    ropeInverseFrequencies: ropeInverseFrequencies(model),
    qkNorm: model.qkNorm,
    gatedMlp: model.gatedMlp,
    activation: model.activation,
    slidingWindow: model.slidingWindow ?? 0,
    numExperts: experts?.count ?? 0,
    numActiveExperts: experts?.activePerToken ?? 0,
    normalizeTopK: experts?.normalizeTopK ?? false,
  };
}

function nativeTensors({ model, tensors }: ModelFolder, { weights }: Realisation): NativeTensor[] {
  const placements = {
    embed: byRole(weights.embed),
    decoder: byRole(weights.decoder),
    head: byRole(weights.head),
  };
  return tensors.map((tensor) => {
    const { layer, role, rows, cols, file } = tensor;
    const { gpuRows, cpuRows } = placements[layerKind(model, layer)].get(role)!;
    const dtype = fileDataType(tensor, role);
    return { layer, role, path: file.path, byteOffset: file.byteOffset, dtype, rows, cols, gpuRows, cpuRows };
  });
}

function byRole(placements: readonly TensorPlacement[]): Map<string, TensorPlacement> {
  return new Map(placements.map((placement) => [placement.role, placement]));
}
