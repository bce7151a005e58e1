/**
 * Rotary positions as `config.json` states them: `rope_theta` + `rope_scaling`, or `rope_parameters` with both inside.
 */
import type { ConfigFields } from './config-fields.js';
import type { Positions } from './model-config.js';

const ROPE_TYPES = { default: 'default', linear: 'linear', llama3: 'llama3' } as const;

/** `defaultTheta`: what the family means when the file names none. */
export function ropePositions(fields: ConfigFields, defaultTheta: number): Positions {
  fields.require({ partial_rotary_factor: [1], rope_interleaved: [false] });
  const parameters = fields.object('rope_parameters') ?? fields.object('rope_scaling');
  const theta = (parameters?.get('rope_theta') === undefined ? fields : parameters).positive(
    'rope_theta',
    defaultTheta,
  );
  if (!parameters) return { kind: 'rope', theta };
  parameters.require({ partial_rotary_factor: [1] });
  return { kind: 'rope', theta, ...ropeScaling(parameters) };
}

function ropeScaling(parameters: ConfigFields): Pick<Extract<Positions, { kind: 'rope' }>, 'scaling'> {
  // Files before transformers 4.45 say `type`.
  const typeField = parameters.get('rope_type') === undefined ? 'type' : 'rope_type';
  const saysTheta = parameters.get('rope_theta') !== undefined;
  const kind = parameters.word(typeField, ROPE_TYPES, saysTheta ? 'default' : undefined);
  if (kind === 'default') return {};
  const factor = parameters.positive('factor');
  if (kind === 'linear') return { scaling: { kind, factor } };
  const lowFreqFactor = parameters.positive('low_freq_factor');
  const highFreqFactor = parameters.positive('high_freq_factor');
  if (highFreqFactor <= lowFreqFactor) {
    throw parameters.wrong('high_freq_factor', `more than low_freq_factor (${lowFreqFactor})`);
  }
  const originalMaxPositions = parameters.count('original_max_position_embeddings');
  return { scaling: { kind, factor, lowFreqFactor, highFreqFactor, originalMaxPositions } };
}
