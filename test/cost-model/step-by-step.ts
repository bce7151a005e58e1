/**
 * The slow twin of the traffic terms: walks through every block, step, layer and slot as docs/schedule.md tells it, and
 * counts bytes one slot at a time. Nothing of the cost model is used but the realised slices.
 */
import type { ModelConfig } from '../../src/models/model-config.js';
import type { Policy } from '../../src/policy/policy.js';
import type { Realisation, TensorPlacement } from '../../src/policy/realisation.js';
import type { Device, Link, Phase, Tier } from '../../src/tiers.js';
import type { SequenceLength, Workload } from '../../src/workload/workload.js';

type Traffic = Record<Phase, Record<Link, number>>;

const bytesOfType = { float32: 4, float16: 2, bfloat16: 2 };
const isVector = (role: string) => /Norm|Bias/.test(role);
const isTable = (role: string) => /Embedding/.test(role);

/** Slot by slot what the runs say. */
export function slotsOf({ slots: { kvCache, activations } }: Realisation) {
  const kvSlots = kvCache.flatMap((run) => Array.from({ length: run.end - run.first }, () => run));
  const tiers = activations.flatMap(({ first, end, tier }) => Array.from({ length: end - first }, () => tier));
  return kvSlots.map(({ tier, cpuAttention }, b) => ({ kvTier: tier, cpuAttention, activationTier: tiers[b]! }));
}

/** Past rows that one generated token attends to, from the beginning of a chunk of 64. */
function loadedRows(past: number, window = Infinity): number {
  let rows = past;
  while (past - rows + 64 <= past + 1 - window) rows -= 64;
  return rows;
}

function packed(values: number): number {
  return Math.ceil(values / 64) * 36;
}

export function walkThrough(
  model: ModelConfig,
  policy: Policy,
  workload: Workload,
  realisation: Realisation,
  device: Device,
): Traffic {
  const none = () => ({ cpuToGpu: 0, gpuToCpu: 0, diskToCpu: 0, cpuToDisk: 0 });
  const traffic: Traffic = { prefill: none(), decode: none() };
  const hasGpu = device !== 'cpu';
  const element = bytesOfType[model.dtype];
  const kvRow = 2 * model.numKvHeads * (policy.kvCacheBits === 4 ? packed(model.headDim) : model.headDim * element);
  const hidden = model.hiddenSize * element;
  const q = 4 * model.numHeads * model.headDim;

  const come = (phase: Phase, tier: Tier, bytes: number) => {
    if (tier === 'disk') traffic[phase].diskToCpu += bytes;
    if (tier !== 'gpu' && hasGpu) traffic[phase].cpuToGpu += bytes;
  };
  const go = (phase: Phase, tier: Tier, bytes: number) => {
    if (tier !== 'gpu' && hasGpu) traffic[phase].gpuToCpu += bytes;
    if (tier === 'disk') traffic[phase].cpuToDisk += bytes;
  };
  const rowBytes = ({ role, cols }: TensorPlacement) =>
    policy.weightBits === 4 && !isTable(role) && role !== 'router' ? packed(cols) : cols * element;
  const loadWeights = (phase: Phase, layer: readonly TensorPlacement[]) => {
    for (const tensor of layer) {
      if (isVector(tensor.role) || isTable(tensor.role)) continue;
      come(phase, 'cpu', tensor.cpuRows * rowBytes(tensor));
      come(phase, 'disk', (tensor.rows - tensor.gpuRows - tensor.cpuRows) * rowBytes(tensor));
    }
  };
  const fetchRow = (phase: Phase, table: TensorPlacement, row: number) => {
    const tier = row < table.gpuRows ? 'gpu' : row < table.gpuRows + table.cpuRows ? 'cpu' : 'disk';
    come(phase, tier, rowBytes(table));
  };
  const tokenTable = model.tiedEmbeddings
    ? realisation.weights.head.find(({ role }) => role === 'head')!
    : realisation.weights.embed.find(({ role }) => role === 'tokenEmbedding')!;
  const positionTable = realisation.weights.embed.find(({ role }) => role === 'positionEmbedding');

  const slots = slotsOf(realisation);
  const sequences: readonly SequenceLength[] =
    workload.sequences ?? new Array<SequenceLength>(workload.numSequences ?? slots.length).fill(workload);
  for (let first = 0; first < sequences.length; first += slots.length) {
    const block = sequences.slice(first, first + slots.length);
    for (let i = 0; block.some(({ genTokens }) => i < genTokens); i++) {
      const phase = i === 0 ? 'prefill' : 'decode';
      loadWeights(phase, realisation.weights.embed);
      for (let layer = 0; layer < model.numLayers; layer++) loadWeights(phase, realisation.weights.decoder);
      loadWeights(phase, realisation.weights.head);
      block.forEach(({ promptTokens, genTokens }, b) => {
        if (i >= genTokens) return;
        const { kvTier, activationTier, cpuAttention } = slots[b]!;
        const newTokens = i === 0 ? promptTokens : 1;
        const past = i === 0 ? 0 : promptTokens + i - 1;
        const loaded = loadedRows(past, model.slidingWindow) * kvRow;
        for (let t = 0; t < newTokens; t++) {
          if (positionTable && model.positions.kind === 'learned')
            fetchRow(phase, positionTable, model.positions.offset + past + t);
          for (let row = 0; row < model.vocabSize; row++) {
            const before = { ...traffic[phase] };
            fetchRow(phase, tokenTable, row);
            for (const link of ['cpuToGpu', 'diskToCpu'] as const)
              traffic[phase][link] = before[link] + (traffic[phase][link] - before[link]) / model.vocabSize;
          }
        }
        go(phase, activationTier, newTokens * hidden);
        for (let layer = 0; layer < model.numLayers; layer++) {
          come(phase, activationTier, newTokens * hidden);
          if (i > 0 && kvTier !== 'gpu') {
            if (cpuAttention) {
              if (kvTier === 'disk') traffic[phase].diskToCpu += loaded;
              traffic[phase].gpuToCpu += q;
              traffic[phase].cpuToGpu += q;
            } else come(phase, kvTier, loaded);
          }
          go(phase, kvTier, newTokens * kvRow);
          go(phase, activationTier, newTokens * hidden);
        }
        come(phase, activationTier, hidden);
      });
    }
  }
  return traffic;
}
