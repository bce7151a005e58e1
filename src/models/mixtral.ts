/** Mixtral: Mistral with a mixture of experts for an MLP. */
import type { ConfigFields } from './config-fields.js';
import type { ModelShape } from './config-reader.js';
import { readRmsDecoder, slidingWindow } from './llama.js';

const MIXTRAL_DEFAULTS = { normEpsilon: 1e-5, ropeTheta: 1_000_000 };

export function readMixtral(fields: ConfigFields): ModelShape {
  return {
    ...readRmsDecoder(fields, MIXTRAL_DEFAULTS),
    ...slidingWindow(fields),
    experts: {
      count: fields.parts('num_local_experts'),
      activePerToken: fields.count('num_experts_per_tok'),
      normalizeTopK: true,
    },
  };
}
