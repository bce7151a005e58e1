import { describe, expect, it } from 'vitest';
import { kvRowBytes, layerTensors, parameterCount, quantizedBytes, rowBytes } from '../../src/models/tensors.js';
import { gatedModel, mixtureModel, projectedModel, tinyModel } from '../cost-model/examples.js';

const shapes = (model: typeof tinyModel, kind: 'embed' | 'decoder' | 'head') =>
  layerTensors(model, kind).map(({ role, rows, cols }) => `${role} ${rows}x${cols}`);

describe('layerTensors', () => {
  it('lays an OPT-like model out as the schedule says', () => {
    expect(shapes(tinyModel, 'embed')).toEqual(['positionEmbedding 64x8']);
    expect(shapes(tinyModel, 'decoder')).toEqual([
      ...['q 8x8', 'k 8x8', 'v 8x8', 'o 8x8', 'up 32x8', 'down 8x32'],
      ...['attentionNorm 8x1', 'attentionNormBias 8x1', 'qBias 8x1', 'kBias 8x1', 'vBias 8x1', 'oBias 8x1'],
      ...['mlpNorm 8x1', 'mlpNormBias 8x1', 'upBias 32x1', 'downBias 8x1'],
    ]);
    expect(shapes(tinyModel, 'head')).toEqual(['head 50x8', 'finalNorm 8x1', 'finalNormBias 8x1']);
  });

  it('has fewer K and V rows with grouped queries, a gate, and an embedding of its own', () => {
    expect(shapes(gatedModel, 'embed')).toEqual(['tokenEmbedding 100x64']);
    expect(shapes(gatedModel, 'decoder')).toEqual([
      ...['q 64x64', 'k 32x64', 'v 32x64', 'o 64x64', 'gate 96x64', 'up 96x64', 'down 64x96'],
      ...['attentionNorm 64x1', 'mlpNorm 64x1'],
    ]);
  });

  it('puts the router before the experts', () => {
    const roles = layerTensors(mixtureModel, 'decoder').map(({ role }) => role);
    expect(roles.slice(4, 9)).toEqual(['router', 'experts.0.gate', 'experts.0.up', 'experts.0.down', 'experts.1.gate']);
    expect(roles.filter((role) => role.startsWith('experts.')).length).toBe(12);
  });

  it('projects an embedding of another width in and out', () => {
    expect(shapes(projectedModel, 'embed')).toEqual(['positionEmbedding 64x8', 'projectIn 8x4']);
    expect(shapes(projectedModel, 'head')).toEqual(['projectOut 4x8', 'head 50x4']);
  });
});

describe('sizes', () => {
  it('count every parameter once', () => {
    const vectors = 16 + 3 * 8 + 8 + 16 + 32 + 8;
    const decoder = 4 * 8 * 8 + 2 * 32 * 8 + vectors;
    expect(parameterCount(tinyModel)).toBe(64 * 8 + 2 * decoder + 50 * 8 + 16);
    expect(parameterCount(mixtureModel)).toBe(
      100 * 64 + 3 * (64 * 64 * 2 + 2 * 32 * 64 + 4 * 64 + 4 * 3 * 96 * 64 + 128) + 100 * 64 + 64,
    );
  });

  it('pack 64 values in 36 bytes and pad a row to whole groups', () => {
    expect([1, 64, 65, 128].map(quantizedBytes)).toEqual([36, 36, 72, 72]);
    const [q] = layerTensors(gatedModel, 'decoder');
    expect(rowBytes(gatedModel, q!, 16)).toBe(256);
    expect(rowBytes(gatedModel, q!, 4)).toBe(36);
  });

  it('leave tables, router and vectors unpacked', () => {
    const table = layerTensors(gatedModel, 'embed')[0]!;
    const router = layerTensors(mixtureModel, 'decoder').find(({ role }) => role === 'router')!;
    const norm = layerTensors(tinyModel, 'decoder').find(({ role }) => role === 'mlpNorm')!;
    expect(rowBytes(gatedModel, table, 4)).toBe(256);
    expect(rowBytes(mixtureModel, router, 4)).toBe(256);
    expect(rowBytes(tinyModel, norm, 4)).toBe(4);
  });

  it('pad each head of a 4-bit KV row', () => {
    expect(kvRowBytes(gatedModel, 16)).toBe(2 * 2 * 16 * 4);
    expect(kvRowBytes(gatedModel, 4)).toBe(2 * 2 * 36);
  });
});
