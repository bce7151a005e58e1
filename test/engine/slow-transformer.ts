/**
 * The transformer written down as plainly as possible, in double precision, without cache: the twin that the engine is
 * held against.
 */
import type { ModelConfig } from '../../src/models/model-config.js';

type Vector = number[];
/** The tensor of a role in a schedule layer, row-major; undefined where the model has none. */
export type Weights = (layer: number, role: string) => Float32Array | undefined;

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
const add = (a: Vector, b: ArrayLike<number>) => a.map((value, i) => value + b[i]!);

/** weight [out, in] x + bias */
function linear(x: Vector, weight: Float32Array, bias?: Float32Array): Vector {
  return Array.from({ length: weight.length / x.length }, (_, row) => {
    const product = sum(x.map((value, col) => value * weight[row * x.length + col]!));
    return product + (bias?.[row] ?? 0);
  });
}

function normalise(model: ModelConfig, x: Vector, gain: Float32Array, bias?: Float32Array): Vector {
  const mean = model.norm === 'layerNorm' ? sum(x) / x.length : 0;
  const variance = sum(x.map((value) => (value - mean) ** 2)) / x.length;
  return x.map((value, i) => ((value - mean) / Math.sqrt(variance + model.normEpsilon)) * gain[i]! + (bias?.[i] ?? 0));
}

/** Abramowitz and Stegun's series for erf, summed until it stands still. */
function erf(x: number): number {
  let term = x;
  let total = x;
  for (let n = 1; Math.abs(term) > 1e-17 && n < 200; n++) {
    term *= (-x * x) / n;
    total += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * total;
}

const ACTIVATIONS: Record<ModelConfig['activation'], (x: number) => number> = {
  relu: (x) => Math.max(0, x),
  silu: (x) => x / (1 + Math.exp(-x)),
  gelu: (x) => (x / 2) * (1 + (Math.abs(x) > 5 ? Math.sign(x) : erf(x / Math.SQRT2))),
  geluTanh: (x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
};

/** Angle per position of the pair (d, d + headDim / 2). */
function rotaryFrequency(model: ModelConfig, d: number): number {
  if (model.positions.kind !== 'rope') return 0;
  const { theta, scaling } = model.positions;
  const frequency = 1 / theta ** ((2 * d) / model.headDim);
  if (!scaling) return frequency;
  if (scaling.kind === 'linear') return frequency / scaling.factor;
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength < scaling.originalMaxPositions / scaling.highFreqFactor) return frequency;
  if (wavelength > scaling.originalMaxPositions / scaling.lowFreqFactor) return frequency / scaling.factor;
  const share =
    (scaling.originalMaxPositions / wavelength - scaling.lowFreqFactor) /
    (scaling.highFreqFactor - scaling.lowFreqFactor);
  return (1 - share) * (frequency / scaling.factor) + share * frequency;
}

function rotate(model: ModelConfig, head: Vector, position: number): Vector {
  if (model.positions.kind !== 'rope') return head;
  const half = model.headDim / 2;
  return head.map((value, d) => {
    const angle = position * rotaryFrequency(model, d % half);
    const other = d < half ? -head[d + half]! : head[d - half]!;
    return value * Math.cos(angle) + other * Math.sin(angle);
  });
}

function softmax(scores: Vector): Vector {
  const most = Math.max(...scores);
  const weights = scores.map((score) => Math.exp(score - most));
  return weights.map((weight) => weight / sum(weights));
}

function heads(
  model: ModelConfig,
  x: Vector,
  normGain: Float32Array | undefined,
  position: number,
  rotary: boolean,
): Vector[] {
  return Array.from({ length: x.length / model.headDim }, (_, h) => {
    const head = x.slice(h * model.headDim, (h + 1) * model.headDim);
    const normed = normGain ? normalise(model, head, normGain) : head;
    return rotary ? rotate(model, normed, position) : normed;
  });
}

/** The shares, with all but those of the highest ceil(fraction * positions) set to zero; equal ones go to the first. */
function highestShares(shares: Vector, fraction: number): Vector {
  const kept = shares.map((_, i) => i).sort((a, b) => shares[b]! - shares[a]! || a - b);
  kept.length = Math.ceil(fraction * shares.length);
  return shares.map((share, i) => (kept.includes(i) ? share : 0));
}

function attention(
  model: ModelConfig,
  inputs: Vector[],
  w: (role: string) => Float32Array | undefined,
  sparseValueFraction: number,
): Vector[] {
  const project = (x: Vector, role: string) => linear(x, w(role)!, w(`${role}Bias`));
  const q = inputs.map((x, t) => heads(model, project(x, 'q'), w('qNorm'), t, true));
  const k = inputs.map((x, t) => heads(model, project(x, 'k'), w('kNorm'), t, true));
  const v = inputs.map((x, t) => heads(model, project(x, 'v'), undefined, t, false));
  return q.map((queries, t) => {
    const first = Math.max(0, t + 1 - (model.slidingWindow ?? Infinity));
    const outputs = queries.flatMap((query, h) => {
      const kvHead = Math.floor((h * model.numKvHeads) / model.numHeads);
      const seen = Array.from({ length: t + 1 - first }, (_, i) => first + i);
      const dot = (p: number) => sum(query.map((value, d) => value * k[p]![kvHead]![d]!));
      const scores = seen.map((p) => dot(p) / Math.sqrt(model.headDim));
      const shares = highestShares(softmax(scores), sparseValueFraction);
      return query.map((_, d) => sum(seen.map((p, i) => shares[i]! * v[p]![kvHead]![d]!)));
    });
    return project(outputs, 'o');
  });
}

function mlp(model: ModelConfig, x: Vector, w: (role: string) => Float32Array | undefined, prefix = ''): Vector {
  const project = (input: Vector, role: string) => linear(input, w(prefix + role)!, w(`${prefix}${role}Bias`));
  const activate = ACTIVATIONS[model.activation];
  const up = project(x, 'up');
  const inner = model.gatedMlp ? project(x, 'gate').map((gate, i) => activate(gate) * up[i]!) : up.map(activate);
  return project(inner, 'down');
}

function mixture(model: ModelConfig, x: Vector, w: (role: string) => Float32Array | undefined): Vector {
  if (!model.experts) return mlp(model, x, w);
  const shares = softmax(linear(x, w('router')!));
  const chosen = shares
    .map((share, expert) => ({ share, expert }))
    .sort((a, b) => b.share - a.share)
    .slice(0, model.experts.activePerToken);
  const total = model.experts.normalizeTopK ? sum(chosen.map(({ share }) => share)) : 1;
  return chosen
    .map(({ share, expert }) => mlp(model, x, w, `experts.${expert}.`).map((value) => (value * share) / total))
    .reduce(add);
}

function embed(model: ModelConfig, weights: Weights, id: number, position: number): Vector {
  const table = (weights(0, 'tokenEmbedding') ?? weights(model.numLayers + 1, 'head'))!;
  const token = Array.from(table.slice(id * model.embeddingSize, (id + 1) * model.embeddingSize));
  const projectIn = weights(0, 'projectIn');
  const x = projectIn ? linear(token, projectIn) : token;
  if (model.positions.kind !== 'learned') return x;
  const row = (position + model.positions.offset) * model.hiddenSize;
  return add(x, weights(0, 'positionEmbedding')!.slice(row, row + model.hiddenSize));
}

/** Logits after the last token. */
export function slowLogits(
  model: ModelConfig,
  weights: Weights,
  ids: readonly number[],
  sparseValueFraction = 1,
): Vector {
  let x = ids.map((id, position) => embed(model, weights, id, position));
  for (let layer = 1; layer <= model.numLayers; layer++) {
    const w = (role: string) => weights(layer, role);
    const subLayer = (role: string, f: (inputs: Vector[]) => Vector[]) => {
      const norm = (v: Vector) => normalise(model, v, w(role)!, w(`${role}Bias`));
      const pre = model.normPlacement === 'pre';
      const outputs = f(pre ? x.map(norm) : x);
      x = x.map((residual, t) => add(residual, outputs[t]!)).map((v) => (pre ? v : norm(v)));
    };
    subLayer('attentionNorm', (inputs) => attention(model, inputs, w, sparseValueFraction));
    subLayer('mlpNorm', (inputs) => inputs.map((input) => mixture(model, input, w)));
  }
  const head = (role: string) => weights(model.numLayers + 1, role);
  const last = x.at(-1)!;
  const normed = model.finalNorm ? normalise(model, last, head('finalNorm')!, head('finalNormBias')) : last;
  const projectOut = head('projectOut');
  return linear(projectOut ? linear(normed, projectOut) : normed, head('head')!);
}
