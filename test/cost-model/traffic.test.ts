import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { estimate, estimateRealised } from '../../src/cost-model/estimate.js';
import { realise } from '../../src/policy/realisation.js';
import { LINKS, type Device } from '../../src/tiers.js';
import { workloadFromNumbers } from '../../src/workload/blocks.js';
import { anyLongWorkload, anyModel, anyPolicy, anyWorkload, withoutGpu } from './arbitraries.js';
import { slidingModel, tinyModel } from './examples.js';
import { machine } from './machines.js';
import { walkThrough } from './step-by-step.js';

const anyDevice = fc.constantFrom<Device>('cuda', 'emulated', 'cpu');

describe('traffic', () => {
  it.each([
    ['any model', anyModel, anyWorkload, 150],
    ['a window in long prompts', fc.constant(slidingModel), anyLongWorkload, 30],
  ])('of a realised policy is what a walk through the schedule counts: %s', (_, models, workloads, numRuns) => {
    let moved = 0;
    fc.assert(
      fc.property(models, anyPolicy, workloads, anyDevice, (model, any, workload, device) => {
        const policy = device === 'cpu' ? withoutGpu(any) : any;
        const realisation = realise(model, policy, workload, device);
        const { trafficBytes } = estimateRealised(model, machine(device), workload, policy, realisation).whole();
        const counted = walkThrough(model, policy, workload, realisation, device);
        for (const phase of ['prefill', 'decode'] as const)
          for (const link of LINKS) {
            expect(trafficBytes[phase][link] / (counted[phase][link] || 1)).toBeCloseTo(
              counted[phase][link] ? 1 : 0,
              9,
            );
            if (counted[phase][link] > 0) moved++;
          }
      }),
      { numRuns },
    );
    expect(moved).toBeGreaterThan(2 * numRuns);
  });

  it('of planned fractions is that of the realised slices where these hit the fractions', () => {
    const whole = { gpu: 0, cpu: 1, disk: 0 };
    const onDisk = { gpu: 0, cpu: 0, disk: 1 };
    let compared = 0;
    fc.assert(
      fc.property(anyModel, anyPolicy, anyWorkload, fc.constantFrom(whole, onDisk), (model, any, workload, tier) => {
        const placement = { weights: tier, kvCache: tier, activations: tier };
        const policy = { ...any, placement, cpuAttentionFraction: 1, diskKvCpuAttentionFraction: 0 };
        const planned = estimate(model, machine(), workload, policy);
        const realised = estimate(model, machine(), workload, policy, { realised: true });
        expect(planned.totalSeconds / realised.totalSeconds).toBeCloseTo(1, 9);
        for (const link of LINKS) {
          expect(planned.trafficBytes.decode[link]).toBeCloseTo(realised.trafficBytes.decode[link], 4);
          compared++;
        }
      }),
    );
    expect(compared).toBeGreaterThan(200);
  });

  it('by hand: weights in RAM, one sequence, three tokens', () => {
    const onGpu = { gpu: 1, cpu: 0, disk: 0 };
    const placement = { weights: { gpu: 0, cpu: 1, disk: 0 }, kvCache: onGpu, activations: onGpu };
    const policy = {
      gpuBatchSize: 1,
      numGpuBatches: 1,
      placement,
      weightBits: 16,
      kvCacheBits: 16,
      quantGroupSize: 64,
      cpuAttentionFraction: 0,
      overlap: true,
    } as const;
    const { trafficBytes } = estimate(tinyModel, machine(), workloadFromNumbers(4, 3, 1), policy, { realised: true });
    const decoderBytes = 2 * (4 * 64 + 2 * 256);
    const headBytes = 2 * 50 * 8;
    const step = 2 * decoderBytes + headBytes;
    const embeddingRows = 2 * 8 * 2; // of the token and of its position
    expect(trafficBytes.prefill.cpuToGpu).toBe(step + 4 * embeddingRows);
    expect(trafficBytes.decode.cpuToGpu).toBe(2 * (step + embeddingRows));
    expect(trafficBytes.decode.gpuToCpu).toBe(0);
  });
});
