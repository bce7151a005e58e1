import { describe, expect, it } from 'vitest';
import { checkLengths, checkSameModel, planDevice } from '../../src/cli/run-checks.js';
import { findModel } from '../../src/models/registry.js';
import type { Plan } from '../../src/solver/plan.js';
import { emulatedPlan } from './sample-plan.js';

const opt = findModel('facebook/opt-125m');

describe('checkSameModel', () => {
  it('takes the same shape under another name', () => {
    expect(() => checkSameModel(opt, { ...opt, name: 'mine' })).not.toThrow();
  });

  it.each(['numLayers', 'hiddenSize', 'vocabSize', 'numKvHeads'] as const)('refuses another %s by name', (name) => {
    expect(() => checkSameModel(opt, { ...opt, [name]: opt[name] + 1 })).toThrow(
      expect.objectContaining({
        code: 'wrong-model',
        message: expect.stringContaining(`${name} ${opt[name]}`) as string,
      }),
    );
  });

  it('refuses an embedding of another width, or one that is no longer the head', () => {
    expect(() => checkSameModel(opt, { ...opt, embeddingSize: 512 })).toThrow('embeddingSize 768');
    expect(() => checkSameModel(opt, { ...opt, tiedEmbeddings: false })).toThrow('tiedEmbeddings true');
  });

  it('refuses another number format', () => {
    expect(() => checkSameModel(opt, { ...opt, dtype: 'float32' })).toThrow('dtype float16');
  });
});

describe('checkLengths', () => {
  const plan = { workload: { promptTokens: 32, genTokens: 8 } } as Plan;

  it('takes prompts up to the planned lengths', () => {
    expect(() => checkLengths(plan, { promptTokens: 32, genTokens: 8 })).not.toThrow();
  });

  it.each([
    [{ promptTokens: 33, genTokens: 8 }, 'promptTokens 32, got one of 33'],
    [{ promptTokens: 1, genTokens: 9 }, 'genTokens 8, got one of 9'],
  ])('refuses %o and says how to plan anew', (job, message) => {
    expect(() => checkLengths(plan, job)).toThrow(message);
    expect(() => checkLengths(plan, job)).toThrow('flexplan optimize --input');
  });
});

describe('planDevice', () => {
  it('paces the emulated link as the profile was told, not as it measured', async () => {
    const { device, linkBytesPerSecond } = await planDevice(emulatedPlan({ linkBytesPerSecond: 200e6 }), {});
    expect(device).toBe('emulated');
    expect(linkBytesPerSecond).toEqual({ cpuToGpu: 200e6, gpuToCpu: 200e6 });
  });

  it('falls back on the measured rate, and lets the user override', async () => {
    expect((await planDevice(emulatedPlan({}), {})).linkBytesPerSecond?.cpuToGpu).toBe(150e6);
    expect((await planDevice(emulatedPlan({}), { linkBandwidth: 1e6 })).linkBytesPerSecond?.cpuToGpu).toBe(1e6);
  });

  it('keeps the smaller of the planned and the requested cap', async () => {
    const plan = emulatedPlan({});
    expect((await planDevice(plan, {})).capacityBytes).toEqual({ gpu: 4e6, cpu: 8e9, disk: 1e12 });
    const caps = (await planDevice(plan, { cpuMemory: 1e9, gpuMemory: 5e6 })).capacityBytes;
    expect(caps).toEqual({ gpu: 4e6, cpu: 1e9, disk: 1e12 });
  });

  it('runs on another device only when asked to', async () => {
    const { device, linkBytesPerSecond } = await planDevice(emulatedPlan({}), { device: 'cpu' });
    expect(device).toBe('cpu');
    expect(linkBytesPerSecond).toBeUndefined();
  });
});
