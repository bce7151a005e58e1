/** Qwen2, Qwen3 and Qwen3's mixtures. */
import type { ConfigFields } from './config-fields.js';
import type { ModelShape } from './config-reader.js';
import { readRmsDecoder, slidingWindow } from './llama.js';

const QWEN_DEFAULTS = { normEpsilon: 1e-6, ropeTheta: 10_000 };

/** Layers from `max_window_layers` on see a window; flexplan computes all layers alike, so it must be all or none. */
function qwenWindow(fields: ConfigFields): Pick<ModelShape, 'slidingWindow'> {
  if (!fields.flag('use_sliding_window', false)) return {};
  const firstWindowLayer = fields.get('max_window_layers') === 0 ? 0 : fields.count('max_window_layers');
  if (firstWindowLayer >= fields.parts('num_hidden_layers')) return {};
  if (firstWindowLayer > 0) {
    throw fields.unsupported('max_window_layers', '0 or num_hidden_layers where use_sliding_window is true');
  }
  return slidingWindow(fields);
}

export function readQwen2(fields: ConfigFields): ModelShape {
  return { ...readRmsDecoder(fields, QWEN_DEFAULTS), ...qwenWindow(fields), qkvBias: true };
}

export function readQwen3(fields: ConfigFields): ModelShape {
  const bias = fields.flag('attention_bias', false);
  return {
    ...readRmsDecoder(fields, QWEN_DEFAULTS),
    ...qwenWindow(fields),
    qkvBias: bias,
    outputBias: bias,
    qkNorm: true,
  };
}

export function readQwen3Moe(fields: ConfigFields): ModelShape {
  fields.require({ decoder_sparse_step: [1] });
  const denseLayers = fields.get('mlp_only_layers') ?? [];
  if (!Array.isArray(denseLayers) || denseLayers.length > 0) {
    throw fields.unsupported('mlp_only_layers', 'absent or empty');
  }
  return {
    ...readQwen3(fields),
    ffnSize: fields.count('moe_intermediate_size'),
    experts: {
      count: fields.parts('num_experts'),
      activePerToken: fields.count('num_experts_per_tok'),
      normalizeTopK: fields.flag('norm_topk_prob', false),
    },
  };
}
