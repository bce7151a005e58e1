import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { layerTensors, rowBytes, LAYER_KINDS } from '../../src/models/tensors.js';
import { realise, tensorRows } from '../../src/policy/realisation.js';
import { TIERS } from '../../src/tiers.js';
import { reservedTokens } from '../../src/workload/blocks.js';
import { gatedModel, tinyModel } from '../cost-model/examples.js';
import { anyModel, anyPolicy, anyWorkload } from '../cost-model/arbitraries.js';
import { slotsOf } from '../cost-model/step-by-step.js';

const policy = {
  gpuBatchSize: 4,
  numGpuBatches: 3,
  placement: {
    weights: { gpu: 0.2, cpu: 0.8, disk: 0 },
    kvCache: { gpu: 0.25, cpu: 0.5, disk: 0.25 },
    activations: { gpu: 0, cpu: 1, disk: 0 },
  },
  weightBits: 16,
  kvCacheBits: 16,
  quantGroupSize: 64,
  cpuAttentionFraction: 0.5,
  overlap: true,
} as const;

describe('realise', () => {
  it('cuts a decoder layer at the nearest row boundary', () => {
    // tinyModel: q k v o of 8x8, up 32x8, down 8x32, fp16: 128 bytes each of q k v o, 512 each of up and down
    const { weights } = realise(tinyModel, policy, { promptTokens: 4, genTokens: 2 }, 'cuda');
    const gpuRows = weights.decoder.filter(({ cols }) => cols > 1).map((t) => t.gpuRows);
    // 0.2 of 1536 bytes = 307.2: q and k whole (256), then 51.2 bytes of v, in rows of 16 bytes: 3
    expect(gpuRows).toEqual([8, 8, 3, 0, 0, 0]);
  });

  it('gives each GPU batch its running share of slots, and attends the first of them on the CPU', () => {
    const slots = slotsOf(realise(tinyModel, policy, { promptTokens: 4, genTokens: 2 }, 'cuda'));
    const batch = ['gpu', 'cpu', 'cpu', 'disk'];
    expect(slots.map(({ kvTier }) => kvTier)).toEqual([...batch, ...batch, ...batch]);
    const attended = [false, true, false, false];
    expect(slots.map(({ cpuAttention }) => cpuAttention)).toEqual([...attended, ...attended, ...attended]);
  });

  it('never hands out a negative number of slots when shares interleave', () => {
    const kvCache = { gpu: 0.4, cpu: 0.2, disk: 0.4 };
    const shape = { ...policy, gpuBatchSize: 1, numGpuBatches: 10, placement: { ...policy.placement, kvCache } };
    const slots = slotsOf(realise(tinyModel, shape, { promptTokens: 4, genTokens: 2 }, 'cuda'));
    const count = (tier: string) => slots.filter(({ kvTier }) => kvTier === tier).length;
    expect([count('gpu'), count('cpu'), count('disk')]).toEqual([4, 2, 4]);
  });

  it('has no attention beside the device when the device is the CPU, and no gpu tier', () => {
    const onCpu = { gpu: 0, cpu: 1, disk: 0 };
    const placement = { weights: onCpu, kvCache: onCpu, activations: onCpu };
    const workload = { promptTokens: 4, genTokens: 2 };
    const { slots, bytes } = realise(tinyModel, { ...policy, placement }, workload, 'cpu');
    expect(slots.kvCache.every(({ cpuAttention }) => !cpuAttention)).toBe(true);
    expect(bytes.weights.gpu).toBe(0);
    expect(() => realise(tinyModel, policy, workload, 'cpu')).toThrow(/placement.weights.gpu to be 0/);
  });

  it('names the sum of fractions that do not make 1', () => {
    const placement = { ...policy.placement, kvCache: { gpu: 0.5, cpu: 0.4, disk: 0 } };
    expect(() => realise(tinyModel, { ...policy, placement }, { promptTokens: 4, genTokens: 2 }, 'cuda')).toThrow(
      /placement\.kvCache.*= 0\.9;/,
    );
  });

  it('places every byte once and within one row (one slot) of the fraction asked for', () => {
    let splits = 0;
    fc.assert(
      fc.property(anyModel, anyPolicy, anyWorkload, (model, asked, workload) => {
        const realised = realise(model, asked, workload, 'cuda');
        for (const kind of LAYER_KINDS) {
          const tensors = layerTensors(model, kind);
          const placed = realised.weights[kind];
          expect(placed.map(({ role }) => role)).toEqual(tensors.map(({ role }) => role));
          const layer = { gpu: 0, cpu: 0, disk: 0 };
          let largestRow = 0;
          tensors.forEach((tensor, t) => {
            const rows = tensorRows(placed[t]!);
            for (const tier of TIERS) expect(rows[tier]).toBeGreaterThanOrEqual(0);
            expect(rows.gpu + rows.cpu + rows.disk).toBe(tensor.rows);
            if (tensor.kind === 'vector') return expect(rows.gpu).toBe(tensor.rows);
            const size = rowBytes(model, tensor, asked.weightBits);
            largestRow = Math.max(largestRow, size);
            for (const tier of TIERS) layer[tier] += rows[tier] * size;
            if (rows.gpu > 0 && rows.cpu > 0) splits++;
          });
          const total = layer.gpu + layer.cpu + layer.disk;
          const { gpu, disk } = asked.placement.weights;
          expect(Math.abs(layer.gpu - gpu * total)).toBeLessThanOrEqual(largestRow / 2 + total * 1e-5);
          expect(Math.abs(layer.disk - disk * total)).toBeLessThanOrEqual(largestRow / 2 + total * 1e-5);
        }
        const blockSize = asked.gpuBatchSize * asked.numGpuBatches;
        const slots = slotsOf(realised);
        expect(slots.length).toBe(blockSize);
        for (const tier of TIERS) {
          const numSlots = slots.filter(({ kvTier }) => kvTier === tier).length;
          expect(Math.abs(numSlots - asked.placement.kvCache[tier] * blockSize)).toBeLessThanOrEqual(1.01);
        }
      }),
    );
    expect(splits).toBeGreaterThan(20);
  });

  it('reserves the KV rows of the largest block, tier by tier', () => {
    const sequences = [
      { promptTokens: 3, genTokens: 2 },
      { promptTokens: 9, genTokens: 1 },
      { promptTokens: 5, genTokens: 4 },
    ];
    const shape = { ...policy, gpuBatchSize: 2, numGpuBatches: 1, kvCacheBits: 4 } as const;
    const onCpu = { ...shape, placement: { ...shape.placement, kvCache: { gpu: 0, cpu: 1, disk: 0 } } };
    const workload = { promptTokens: 9, genTokens: 4, numSequences: 3, sequences };
    const { bytes } = realise(gatedModel, onCpu, workload, 'cuda');
    // gatedModel: 3 layers, 2 KV heads of 16 values: one padded group of 36 bytes each, for K and for V
    expect(bytes.kvCache).toEqual({ gpu: 0, cpu: (4 + 9) * 3 * 2 * 2 * 36, disk: 0 });
    expect(sequences.map(reservedTokens)).toEqual([4, 9, 8]);
  });
});
