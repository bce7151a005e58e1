/** Policies from outside: the JSON document, and FlexGen's six percentages. */
import { FlexplanError } from '../errors.js';
import { documentCheck } from '../schema.js';
import { QUANT_GROUP_SIZE, SCHEDULES, TENSOR_CLASSES, type Policy, type TierFractions } from './policy.js';

const fraction = { type: 'number', minimum: 0, maximum: 1 };
const positiveFraction = { type: 'number', exclusiveMinimum: 0, maximum: 1 };
const count = { type: 'integer', minimum: 1 };
const tierFractions = {
  type: 'object',
  properties: { gpu: fraction, cpu: fraction, disk: fraction },
  required: ['gpu', 'cpu', 'disk'],
  additionalProperties: false,
};

/** JSON Schema of the policy document. */
export const policySchema = {
  type: 'object',
  properties: {
    schemaVersion: { const: 1 },
    gpuBatchSize: count,
    numGpuBatches: count,
    placement: {
      type: 'object',
      properties: { weights: tierFractions, kvCache: tierFractions, activations: tierFractions },
      required: ['weights', 'kvCache', 'activations'],
      additionalProperties: false,
    },
    weightBits: { enum: [16, 4] },
    kvCacheBits: { enum: [16, 4] },
    quantGroupSize: { const: QUANT_GROUP_SIZE },
    cpuAttentionFraction: fraction,
    diskKvCpuAttentionFraction: fraction,
    prefillChunkTokens: count,
    sparseValueFraction: positiveFraction,
    schedule: { enum: SCHEDULES },
    overlap: { type: 'boolean' },
  },
  required: [
    'gpuBatchSize',
    'numGpuBatches',
    'placement',
    'weightBits',
    'kvCacheBits',
    'quantGroupSize',
    'cpuAttentionFraction',
    'overlap',
  ],
  additionalProperties: false,
} as const;

const checkDocument = documentCheck<Policy & { schemaVersion?: 1 }>(policySchema, 'policy', 'correct the policy');

/** Fractions of one class may miss 1 by this much: three numbers with six printed digits. */
const SUM_TOLERANCE = 2e-6;

/** The policy of a JSON document. Throws `bad-input` that names the offending field, or the sum that is not 1. */
export function checkPolicy(document: unknown): Policy {
  const policy: Policy & { schemaVersion?: 1 } = { ...checkDocument(document) };
  delete policy.schemaVersion;
  checkFractions(policy);
  return policy;
}

/** Throws `bad-input` unless the fractions of each tensor class lie in 0..1 and sum to 1. */
export function checkFractions({ placement }: Pick<Policy, 'placement'>): void {
  for (const tensorClass of TENSOR_CLASSES) {
    const { gpu, cpu, disk } = placement[tensorClass];
    const sum = gpu + cpu + disk;
    const inRange = [gpu, cpu, disk].every((f) => f >= 0 && f <= 1 + SUM_TOLERANCE);
    if (!inRange || !(Math.abs(sum - 1) <= SUM_TOLERANCE))
      throw new FlexplanError(
        'bad-input',
        `expected placement.${tensorClass} to be fractions from 0 to 1 that sum to 1, got ${gpu} + ${cpu} + ${disk} = ${sum}; correct the policy`,
      );
  }
}

/**
 * FlexGen's `--percent`: weights gpu, cpu; KV cache gpu, cpu; activations gpu, cpu (0 to 100); the rest of each is
 * disk.
 */
type Percent = readonly [
  weightsGpu: number,
  weightsCpu: number,
  kvCacheGpu: number,
  kvCacheCpu: number,
  activationsGpu: number,
  activationsCpu: number,
];

/** A policy from FlexGen's six numbers; what they leave open comes from `rest`. Throws `bad-input`. */
export function policyFromPercent(percent: readonly number[], rest: Omit<Policy, 'placement'>): Policy {
  if (percent.length !== 6)
    throw new FlexplanError('bad-input', `expected six percentages, got ${percent.length}; give wg wc cg cc hg hc`);
  const [wg, wc, cg, cc, hg, hc] = percent as Percent;
  const placement = {
    weights: fromPercent('weights', wg, wc),
    kvCache: fromPercent('kvCache', cg, cc),
    activations: fromPercent('activations', hg, hc),
  };
  return { ...rest, placement };
}

function fromPercent(name: string, gpu: number, cpu: number): TierFractions {
  if (!(gpu >= 0 && cpu >= 0 && gpu + cpu <= 100))
    throw new FlexplanError(
      'bad-input',
      `expected percentages of ${name} from 0 to 100 that sum to at most 100, got ${gpu} and ${cpu}; correct them`,
    );
  return { gpu: gpu / 100, cpu: cpu / 100, disk: (100 - gpu - cpu) / 100 };
}
