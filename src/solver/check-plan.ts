/** Plans from outside: the JSON Schema, refused with the path of the offending field. */
import { checkHardwareProfile } from '../hardware/check-profile.js';
import { checkPolicy, policySchema } from '../policy/check-policy.js';
import { documentCheck } from '../schema.js';
import { LINKS, STAGES, TIERS } from '../tiers.js';
import type { Plan } from './plan.js';

const amount = { type: 'number', minimum: 0 };
const number = { type: 'number' };
const count = { type: 'integer', minimum: 0 };
const positiveCount = { type: 'integer', minimum: 1 };
const text = { type: 'string' };

function closed(properties: Readonly<Record<string, unknown>>, optional: readonly string[] = []) {
  const required = Object.keys(properties).filter((name) => !optional.includes(name));
  return { type: 'object', properties, required, additionalProperties: false };
}

const each = (names: readonly string[], schema: unknown) => closed(Object.fromEntries(names.map((n) => [n, schema])));
const phases = (schema: unknown) => closed({ prefill: schema, decode: schema });
const perTensorClass = (schema: unknown) => closed({ weights: schema, kvCache: schema, activations: schema });

const estimate = closed({
  prefillSeconds: amount,
  decodeSeconds: amount,
  totalSeconds: amount,
  genTokensPerSecond: amount,
  bottleneck: phases({ enum: [...STAGES] }),
  stageSeconds: phases(each(STAGES, amount)),
  trafficBytes: phases(each(LINKS, amount)),
  peakBytes: each(TIERS, amount),
  fits: each(TIERS, { type: 'boolean' }),
});

/** Fields of a model that a plan is read for; the others (norms, positions, ...) pass as they are. */
const model = {
  type: 'object',
  properties: {
    name: text,
    family: text,
    dtype: { enum: ['float32', 'float16', 'bfloat16'] },
    numLayers: positiveCount,
    hiddenSize: positiveCount,
    ffnSize: positiveCount,
    numHeads: positiveCount,
    numKvHeads: positiveCount,
    headDim: positiveCount,
    vocabSize: positiveCount,
    embeddingSize: positiveCount,
  },
  required: [
    'name',
    'family',
    'dtype',
    'numLayers',
    'hiddenSize',
    'ffnSize',
    'numHeads',
    'numKvHeads',
    'headDim',
    'vocabSize',
    'embeddingSize',
  ],
};

const alternative = closed({
  name: text,
  policy: policySchema,
  genTokensPerSecond: amount,
  totalSeconds: amount,
  fits: { type: 'boolean' },
});

const sensitivity = closed({
  resource: { enum: ['gpuCapacity', 'cpuCapacity', 'diskCapacity', ...LINKS] },
  add: text,
  genTokensPerSecondDelta: number,
  firstOrderDelta: number,
});

/** JSON Schema of the plan document. */
export const planSchema = closed({
  schemaVersion: { const: 1 },
  source: { const: 'estimated' },
  model,
  hardware: closed({
    name: text,
    device: { enum: ['cuda', 'cpu', 'emulated'] },
    capacityBytes: each(TIERS, amount),
    profile: { type: 'object' },
  }),
  workload: closed(
    {
      promptTokens: positiveCount,
      genTokens: positiveCount,
      numSequences: positiveCount,
      sharedPromptTokens: positiveCount,
    },
    ['numSequences', 'sharedPromptTokens'],
  ),
  policy: policySchema,
  estimate,
  realised: closed({ placement: policySchema.properties.placement, bytes: perTensorClass(each(TIERS, amount)) }),
  search: closed({
    status: { const: 'optimal' },
    programsSolved: count,
    candidates: count,
    prunedByBound: count,
    infeasible: count,
    failed: count,
    seconds: amount,
    solvingSeconds: amount,
    relaxedGenTokensPerSecond: amount,
    roundingLossFraction: number,
  }),
  certificate: closed({
    primalViolation: amount,
    dualViolation: amount,
    dualityGap: amount,
    dualObjective: number,
    valid: { type: 'boolean' },
  }),
  job: closed({
    numSequences: positiveCount,
    numBlocks: positiveCount,
    blockSeconds: amount,
    hours: amount,
    hoursRange: { type: 'array', items: amount, minItems: 2, maxItems: 2 },
    diskWriteBytes: amount,
  }),
  weightIo: closed({ weightLoads: amount, leastWeightLoads: amount, ratio: amount }),
  alternatives: { type: 'array', items: alternative },
  sensitivity: { type: 'array', items: sensitivity },
});

const checkDocument = documentCheck<Plan>(planSchema, 'plan', 'write a new one with `flexplan optimize --out`');

/** The plan of a JSON document. Throws `bad-input` with the path of the offending field. */
export function checkPlan(document: unknown): Plan {
  const plan = checkDocument(document);
  checkPolicy(plan.policy);
  checkHardwareProfile(plan.hardware.profile);
  return plan;
}
