/**
 * JSON Schema of the run document: what a report reads of it. More may be in it (the plan's search, the environment).
 */
import { LINKS, STAGES, TIERS } from '../tiers.js';

const amount = { type: 'number', minimum: 0 };

function amounts(names: readonly string[]) {
  return { type: 'object', properties: Object.fromEntries(names.map((name) => [name, amount])), required: [...names] };
}

function perPhase(schema: object) {
  return { type: 'object', properties: { prefill: schema, decode: schema }, required: ['prefill', 'decode'] };
}

const named = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'] };
const TIMES = ['prefillSeconds', 'decodeSeconds', 'totalSeconds', 'genTokensPerSecond'] as const;
const measurements = {
  ...Object.fromEntries(TIMES.map((name) => [name, amount])),
  stageSeconds: perPhase(amounts(STAGES)),
  trafficBytes: perPhase(amounts(LINKS)),
  peakBytes: amounts(TIERS),
};
const measurementNames = [...TIMES, 'stageSeconds', 'trafficBytes', 'peakBytes'];

export const runSchema = {
  type: 'object',
  properties: {
    schemaVersion: { const: 1 },
    source: { const: 'measured' },
    device: { enum: ['cuda', 'cpu', 'emulated'] },
    plan: {
      type: 'object',
      properties: { model: named, hardware: named, workload: { type: 'object' }, policy: { type: 'object' } },
      required: ['model', 'hardware', 'workload', 'policy'],
    },
    numSequences: amount,
    promptTokens: amount,
    genTokens: amount,
    numBlocks: amount,
    sharedPrefixTokens: amount,
    sharedPromptTokens: amount,
    ...measurements,
    capacityBytes: amounts(TIERS),
    placedBytes: {
      type: 'object',
      properties: { weights: amounts(TIERS), kvCache: amounts(TIERS), activations: amounts(TIERS) },
      required: ['weights', 'kvCache', 'activations'],
    },
    predicted: { type: 'object', properties: measurements, required: measurementNames },
    error: { type: 'object' },
    environment: { type: 'object' },
  },
  required: [
    'schemaVersion',
    'source',
    'device',
    'plan',
    'numSequences',
    'promptTokens',
    'genTokens',
    'numBlocks',
    ...measurementNames,
    'capacityBytes',
    'placedBytes',
    'predicted',
    'error',
    'environment',
  ],
};
