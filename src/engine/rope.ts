/** Rotary inverse frequencies, scaling applied, as the native engine takes them. */
import type { Llama3RopeScaling, ModelConfig } from '../models/model-config.js';

/** `headDim / 2` angles per position, in radians; empty for learned positions. */
export function ropeInverseFrequencies({
  positions,
  headDim,
}: Pick<ModelConfig, 'positions' | 'headDim'>): Float32Array {
  if (positions.kind === 'learned') return new Float32Array(0);
  const { theta, scaling } = positions;
  return Float32Array.from({ length: headDim / 2 }, (_, i) => {
    const frequency = theta ** ((-2 * i) / headDim);
    if (!scaling) return frequency;
    return scaling.kind === 'linear' ? frequency / scaling.factor : scaledByWavelength(frequency, scaling);
  });
}

/**
 * Llama 3.1: short waves stay, waves longer than the original context are stretched by `factor`, and between the two
 * the amount is interpolated in the number of turns that fit into the original context.
 */
function scaledByWavelength(frequency: number, scaling: Llama3RopeScaling): number {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositions } = scaling;
  const turns = (originalMaxPositions * frequency) / (2 * Math.PI);
  if (turns > highFreqFactor) return frequency;
  if (turns < lowFreqFactor) return frequency / factor;
  const unscaled = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return unscaled * frequency + (1 - unscaled) * (frequency / factor);
}
