/**
 * Roles of docs/schedule.md -> tensor names of Hugging Face files, and the files' shapes checked against the tensor
 * table.
 */
import { FlexplanError } from '../errors.js';
import type { ModelConfig } from '../models/model-config.js';
import { type LayerKind, layerTensors, type TensorSpec } from '../models/tensors.js';
import type { FileTensor } from './safetensors.js';

/**
 * Role -> name. Names of decoder layers follow `<prefix>layers.<n>.`; of the rest, `<prefix>`; those with a leading
 * `/`, nothing.
 */
type NameTable = Readonly<Record<string, string>>;

interface NameScheme {
  /** What a file may put before its names, most usual first. */
  readonly prefixes: readonly string[];
  readonly names: NameTable;
}

const OPT: NameScheme = {
  prefixes: ['model.decoder.', 'decoder.', ''],
  names: {
    tokenEmbedding: 'embed_tokens.weight',
    positionEmbedding: 'embed_positions.weight',
    projectIn: 'project_in.weight',
    projectOut: 'project_out.weight',
    head: '/lm_head.weight',
    finalNorm: 'final_layer_norm.weight',
    finalNormBias: 'final_layer_norm.bias',
    q: 'self_attn.q_proj.weight',
    k: 'self_attn.k_proj.weight',
    v: 'self_attn.v_proj.weight',
    o: 'self_attn.out_proj.weight',
    qBias: 'self_attn.q_proj.bias',
    kBias: 'self_attn.k_proj.bias',
    vBias: 'self_attn.v_proj.bias',
    oBias: 'self_attn.out_proj.bias',
    attentionNorm: 'self_attn_layer_norm.weight',
    attentionNormBias: 'self_attn_layer_norm.bias',
    up: 'fc1.weight',
    upBias: 'fc1.bias',
    down: 'fc2.weight',
    downBias: 'fc2.bias',
    // Inside a decoder layer OPT calls the norm before its MLP "final".
    mlpNorm: 'final_layer_norm.weight',
    mlpNormBias: 'final_layer_norm.bias',
  },
};

const LLAMA: NameScheme = {
  prefixes: ['model.', ''],
  names: {
    tokenEmbedding: 'embed_tokens.weight',
    head: '/lm_head.weight',
    finalNorm: 'norm.weight',
    q: 'self_attn.q_proj.weight',
    k: 'self_attn.k_proj.weight',
    v: 'self_attn.v_proj.weight',
    o: 'self_attn.o_proj.weight',
    qBias: 'self_attn.q_proj.bias',
    kBias: 'self_attn.k_proj.bias',
    vBias: 'self_attn.v_proj.bias',
    oBias: 'self_attn.o_proj.bias',
    qNorm: 'self_attn.q_norm.weight',
    kNorm: 'self_attn.k_norm.weight',
    attentionNorm: 'input_layernorm.weight',
    mlpNorm: 'post_attention_layernorm.weight',
    gate: 'mlp.gate_proj.weight',
    up: 'mlp.up_proj.weight',
    down: 'mlp.down_proj.weight',
    gateBias: 'mlp.gate_proj.bias',
    upBias: 'mlp.up_proj.bias',
    downBias: 'mlp.down_proj.bias',
  },
};

/** `experts.*.` stands for each expert's number. */
const MIXTRAL: NameScheme = {
  prefixes: LLAMA.prefixes,
  names: {
    ...LLAMA.names,
    router: 'block_sparse_moe.gate.weight',
    'experts.*.gate': 'block_sparse_moe.experts.*.w1.weight',
    'experts.*.up': 'block_sparse_moe.experts.*.w3.weight',
    'experts.*.down': 'block_sparse_moe.experts.*.w2.weight',
  },
};

const QWEN3_MOE: NameScheme = {
  prefixes: LLAMA.prefixes,
  names: {
    ...LLAMA.names,
    router: 'mlp.gate.weight',
    'experts.*.gate': 'mlp.experts.*.gate_proj.weight',
    'experts.*.up': 'mlp.experts.*.up_proj.weight',
    'experts.*.down': 'mlp.experts.*.down_proj.weight',
  },
};

const SCHEMES: Readonly<Record<string, NameScheme>> = { opt: OPT, mixtral: MIXTRAL, qwen3_moe: QWEN3_MOE };

/** Buffers that old files carry beside the weights; they are computed here. */
const DERIVED_TENSOR = /\.(rotary_emb\.inv_freq|attn\.bias|attn\.masked_bias)$/;

/** A tensor of a schedule layer and where its bytes are. */
export interface LocatedTensor extends TensorSpec {
  /** Schedule layer: 0 embed, 1..numLayers decoder, numLayers + 1 head. */
  readonly layer: number;
  readonly file: FileTensor;
}

/**
 * Finds every tensor of the model in its files. Throws `bad-input` for one that is missing or has another shape than
 * config.json implies, `unsupported` for one inside a decoder layer that flexplan would not use.
 */
export function locateTensors(model: ModelConfig, files: ReadonlyMap<string, FileTensor>): LocatedTensor[] {
  const { prefixes, names } = SCHEMES[model.family] ?? LLAMA;
  const prefix = prefixes.find((p) => files.has(`${p}${names['tokenEmbedding']}`)) ?? prefixes[0]!;
  const located: LocatedTensor[] = [];
  const used = new Set<string>();
  for (let layer = 0; layer < model.numLayers + 2; layer++) {
    for (const spec of layerTensors(model, layerKind(model, layer))) {
      const candidates = tensorNames(model, names, prefix, layer, spec.role);
      const name = candidates.find((candidate) => files.has(candidate));
      if (name === undefined) {
        throw new FlexplanError(
          'bad-input',
          `expected the tensor ${candidates[0]} in the weights of ${model.name}, got none; download them again, or mend config.json`,
        );
      }
      used.add(name);
      located.push({ ...spec, layer, file: withShape(model, name, spec, files.get(name)!) });
    }
  }
  refuseUnusedLayerTensors(model, `${prefix}layers.`, files, used);
  return located;
}

export function layerKind(model: ModelConfig, layer: number): LayerKind {
  if (layer === 0) return 'embed';
  return layer <= model.numLayers ? 'decoder' : 'head';
}

/** The name of a role's tensor; for a tied head, that of the embedding too. */
function tensorNames(model: ModelConfig, names: NameTable, prefix: string, layer: number, role: string): string[] {
  const expert = /^experts\.(\d+)\./.exec(role)?.[1] ?? '';
  const name = names[role.replace(/^experts\.\d+\./, 'experts.*.')]?.replace('*', expert) ?? role;
  const full = (text: string, inLayer: string) => (text.startsWith('/') ? text.slice(1) : `${prefix}${inLayer}${text}`);
  if (role === 'head' && model.tiedEmbeddings) return [full(names['tokenEmbedding']!, ''), full(name, '')];
  return [full(name, layerKind(model, layer) === 'decoder' ? `layers.${layer - 1}.` : '')];
}

function withShape(model: ModelConfig, name: string, spec: TensorSpec, file: FileTensor): FileTensor {
  const expected = spec.kind === 'vector' ? [spec.rows] : [spec.rows, spec.cols];
  if (file.shape.length !== expected.length || expected.some((size, i) => size !== file.shape[i])) {
    throw new FlexplanError(
      'bad-input',
      `expected ${name} of ${model.name} to have shape [${expected.join(', ')}], got [${file.shape.join(', ')}] in ${file.path}; check that config.json belongs to these weights`,
    );
  }
  return file;
}

/** A bias or norm that config.json does not tell of would otherwise be left out in silence. */
function refuseUnusedLayerTensors(
  model: ModelConfig,
  layersPrefix: string,
  files: ReadonlyMap<string, FileTensor>,
  used: ReadonlySet<string>,
): void {
  for (const [name, { path }] of files) {
    if (name.startsWith(layersPrefix) && !used.has(name) && !DERIVED_TENSOR.test(name)) {
      throw new FlexplanError(
        'unsupported',
        `expected every layer tensor in the weights of ${model.name} to be one of model_type "${model.family}", got ${name} in ${path}; check that config.json belongs to these weights`,
      );
    }
  }
}
