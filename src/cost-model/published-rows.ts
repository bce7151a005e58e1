/** Published measurements as a document: the runs, and the constants of a profile that may be fitted to them. */
import { FlexplanError } from '../errors.js';
import { findModel } from '../models/registry.js';
import { policyFromPercent } from '../policy/check-policy.js';
import { QUANT_GROUP_SIZE, UNCUT_PREFILL } from '../policy/policy.js';
import { documentCheck } from '../schema.js';
import type { FreeConstant } from './calibration.js';
import { OBSERVED_QUANTITIES, type Observation, type ObservedQuantity } from './observations.js';

/** One published row, as data. `percent` is what was really placed; `asked`, where it differs, what the policy said. */
interface PublishedRow {
  readonly name: string;
  readonly source: string;
  readonly use: 'fit' | 'holdOut';
  readonly model: string;
  readonly promptTokens: number;
  readonly genTokens: number;
  readonly gpuBatchSize: number;
  readonly numGpuBatches: number;
  readonly percent: readonly number[];
  readonly asked?: readonly number[];
  readonly weightBits?: 16 | 4;
  readonly kvCacheBits?: 16 | 4;
  readonly cpuAttention: boolean;
  readonly overlap?: boolean;
  readonly decodeStepsTimed?: number;
  readonly quantity: ObservedQuantity;
  readonly value: number;
}

interface PublishedDocument {
  readonly schemaVersion: 1;
  readonly description: string;
  readonly resolution: number;
  readonly free: readonly FreeConstant[];
  readonly rows: readonly PublishedRow[];
}

export interface PublishedObservations {
  readonly free: readonly FreeConstant[];
  readonly fit: readonly Observation[];
  readonly holdOut: readonly Observation[];
}

const text = { type: 'string', minLength: 1 };
const positive = { type: 'number', exclusiveMinimum: 0 };
const count = { type: 'integer', minimum: 1 };
const bits = { enum: [16, 4] };
const percents = { type: 'array', items: { type: 'number', minimum: 0, maximum: 100 }, minItems: 6, maxItems: 6 };
const rowProperties = {
  name: text,
  source: text,
  use: { enum: ['fit', 'holdOut'] },
  model: text,
  promptTokens: count,
  genTokens: count,
  gpuBatchSize: count,
  numGpuBatches: count,
  percent: percents,
  asked: percents,
  weightBits: bits,
  kvCacheBits: bits,
  cpuAttention: { type: 'boolean' },
  overlap: { type: 'boolean' },
  decodeStepsTimed: count,
  quantity: { enum: OBSERVED_QUANTITIES },
  value: positive,
};
const OPTIONAL_IN_ROW = ['asked', 'weightBits', 'kvCacheBits', 'overlap', 'decodeStepsTimed'];

const checkDocument = documentCheck<PublishedDocument>(
  {
    type: 'object',
    properties: {
      schemaVersion: { const: 1 },
      description: text,
      resolution: { type: 'number', minimum: 0 },
      free: {
        type: 'array',
        items: {
          type: 'object',
          properties: { path: text, least: positive, most: positive, doubt: positive },
          required: ['path', 'least', 'most', 'doubt'],
          additionalProperties: false,
        },
      },
      rows: {
        type: 'array',
        items: {
          type: 'object',
          properties: rowProperties,
          required: Object.keys(rowProperties).filter((key) => !OPTIONAL_IN_ROW.includes(key)),
          additionalProperties: false,
        },
      },
    },
    required: ['schemaVersion', 'description', 'resolution', 'free', 'rows'],
    additionalProperties: false,
  },
  'published rows',
  'correct the document',
);

/** The rows of a document such as `hardware-profiles/calibration/t4-published.json`. Throws `bad-input`. */
export function readPublishedRows(document: unknown): PublishedObservations {
  const { free, rows, resolution } = checkDocument(document);
  const names = rows.map(({ name }) => name);
  const repeated = names.find((name, row) => names.indexOf(name) !== row);
  if (repeated !== undefined)
    throw new FlexplanError('bad-input', `expected rows with names of their own, got "${repeated}" twice; rename one`);
  const used = (use: PublishedRow['use']) =>
    rows.filter((row) => row.use === use).map((row) => observationOf(row, resolution));
  return { free, fit: used('fit'), holdOut: used('holdOut') };
}

function observationOf(row: PublishedRow, resolution: number): Observation {
  const attendedByCpu = row.cpuAttention ? 1 : 0;
  const policy = policyFromPercent(row.percent, {
    gpuBatchSize: row.gpuBatchSize,
    numGpuBatches: row.numGpuBatches,
    weightBits: row.weightBits ?? 16,
    kvCacheBits: row.kvCacheBits ?? 16,
    quantGroupSize: QUANT_GROUP_SIZE,
    cpuAttentionFraction: attendedByCpu,
    diskKvCpuAttentionFraction: attendedByCpu,
    prefillChunkTokens: UNCUT_PREFILL,
    overlap: row.overlap ?? true,
  });
  return {
    name: row.name,
    model: findModel(row.model),
    workload: { promptTokens: row.promptTokens, genTokens: row.genTokens },
    policy,
    ...(row.decodeStepsTimed === undefined ? {} : { decodeStepsTimed: row.decodeStepsTimed }),
    quantity: row.quantity,
    value: row.value,
    resolution,
  };
}
