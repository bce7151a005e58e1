/** JSON Schema of the hardware profile document. */

const quantity = (limits: Readonly<Record<string, number>>) => ({
  type: 'object',
  properties: {
    value: { type: 'number', ...limits },
    source: { enum: ['measured', 'fitted', 'datasheet', 'paper', 'set'] },
    spread: { type: 'number', minimum: 0 },
    note: { type: 'string' },
  },
  required: ['value', 'source'],
  additionalProperties: false,
});

// References instead of copies: compiling a check takes longer than running one.
const rate = { $ref: '#/$defs/rate' };
const amount = { $ref: '#/$defs/amount' };
const link = { $ref: '#/$defs/link' };
const matmul = { $ref: '#/$defs/matmul' };
const computeRates = { $ref: '#/$defs/computeRates' };

const linkRate = {
  type: 'object',
  properties: { bytesPerSecond: rate, kvCacheBytesPerSecond: rate, latencySeconds: amount },
  required: ['bytesPerSecond', 'latencySeconds'],
  additionalProperties: false,
};

const matmulPoints = {
  type: 'array',
  minItems: 1,
  items: {
    type: 'object',
    properties: { tokens: { type: 'integer', minimum: 1 }, flopsPerSecond: rate },
    required: ['tokens', 'flopsPerSecond'],
    additionalProperties: false,
  },
};

const ratesOfDevice = {
  type: 'object',
  properties: {
    matmul,
    narrowMatmul: {
      type: 'object',
      properties: { rows: { type: 'integer', minimum: 1 }, wideRows: { type: 'integer', minimum: 2 }, points: matmul },
      required: ['rows', 'wideRows', 'points'],
      additionalProperties: false,
    },
    matmul4Bit: matmul,
    memoryBytesPerSecond: rate,
    attentionPrefillFlopsPerSecond: rate,
    attentionDecodeBytesPerSecond: rate,
    attentionDecode4BitBytesPerSecond: rate,
    dequantizeValuesPerSecond: rate,
    launchSeconds: amount,
    wakeSeconds: amount,
  },
  required: [
    'matmul',
    'memoryBytesPerSecond',
    'attentionPrefillFlopsPerSecond',
    'attentionDecodeBytesPerSecond',
    'launchSeconds',
  ],
  additionalProperties: false,
};

export const hardwareProfileSchema = {
  // A name of its own: inside the plan's schema the references must still mean these definitions.
  $id: 'hardware-profile',
  $defs: {
    rate: quantity({ exclusiveMinimum: 0 }),
    amount: quantity({ minimum: 0 }),
    link: linkRate,
    matmul: matmulPoints,
    computeRates: ratesOfDevice,
  },
  type: 'object',
  properties: {
    schemaVersion: { const: 1 },
    name: { type: 'string', minLength: 1 },
    description: { type: 'string' },
    device: { enum: ['cuda', 'cpu', 'emulated'] },
    memory: {
      type: 'object',
      properties: { gpuBytes: amount, cpuBytes: amount, diskBytes: amount },
      required: ['cpuBytes', 'diskBytes'],
      additionalProperties: false,
    },
    links: {
      type: 'object',
      properties: { cpuToGpu: link, gpuToCpu: link, diskToCpu: link, cpuToDisk: link },
      required: ['diskToCpu', 'cpuToDisk'],
      additionalProperties: false,
    },
    compute: {
      type: 'object',
      properties: { gpu: computeRates, cpu: computeRates },
      required: ['cpu'],
      additionalProperties: false,
    },
    taskSeconds: amount,
    environment: { type: 'object', additionalProperties: { type: ['string', 'number'] } },
  },
  required: ['schemaVersion', 'name', 'device', 'memory', 'links', 'compute', 'taskSeconds'],
  additionalProperties: false,
} as const;
