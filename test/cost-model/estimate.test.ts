import { describe, expect, it } from 'vitest';
import { estimate } from '../../src/cost-model/estimate.js';
import type { Policy } from '../../src/policy/policy.js';
import { workloadFromNumbers } from '../../src/workload/blocks.js';
import { gatedModel } from './examples.js';
import { machine, quantity } from './machines.js';

const onGpu = { gpu: 1, cpu: 0, disk: 0 };
const onCpu = { gpu: 0, cpu: 1, disk: 0 };
const onDisk = { gpu: 0, cpu: 0, disk: 1 };
const policy: Policy = {
  gpuBatchSize: 4,
  numGpuBatches: 2,
  placement: { weights: onGpu, kvCache: onGpu, activations: onGpu },
  weightBits: 16,
  kvCacheBits: 16,
  quantGroupSize: 64,
  cpuAttentionFraction: 0,
  overlap: true,
};
const workload = workloadFromNumbers(64, 8);
const place = (placement: Partial<Policy['placement']>): Policy => ({
  ...policy,
  placement: { ...policy.placement, ...placement },
});

describe('estimate', () => {
  it('names the stage that holds the job up', () => {
    const decode = (p: Policy) => estimate(gatedModel, machine(), workload, p).bottleneck.decode;
    expect(decode(policy)).toBe('compute');
    expect(decode(place({ weights: onCpu }))).toBe('cpuToGpu');
    expect(decode(place({ weights: onDisk }))).toBe('diskToCpu');
    const weakCpu = machine();
    const slow = { ...weakCpu.compute.cpu, attentionDecodeBytesPerSecond: quantity(1e6) };
    const hardware = { ...weakCpu, compute: { ...weakCpu.compute, cpu: slow } };
    const attended = { ...place({ kvCache: onCpu }), cpuAttentionFraction: 1 };
    expect(estimate(gatedModel, hardware, workload, attended).bottleneck.decode).toBe('cpuAttention');
  });

  it('moves q and output instead of the KV cache when the CPU attends', () => {
    const moved = estimate(gatedModel, machine(), workload, place({ kvCache: onCpu }));
    const attended = estimate(gatedModel, machine(), workload, {
      ...place({ kvCache: onCpu }),
      cpuAttentionFraction: 1,
    });
    expect(attended.trafficBytes.decode.cpuToGpu).toBeLessThan(moved.trafficBytes.decode.cpuToGpu / 10);
    expect(attended.stageSeconds.decode.cpuAttention).toBeGreaterThan(0);
    expect(moved.stageSeconds.decode.cpuAttention).toBe(0);
    expect(attended.stageSeconds.prefill).toEqual(moved.stageSeconds.prefill);
  });

  it('finds nothing to overlap with one GPU batch whose activations are away', () => {
    const one = { ...place({ activations: onCpu }), gpuBatchSize: 8, numGpuBatches: 1 };
    const { decodeSeconds, stageSeconds } = estimate(gatedModel, machine(), workload, one);
    const { compute, cpuToGpu, gpuToCpu } = stageSeconds.decode;
    expect(decodeSeconds).toBeGreaterThan(0.99 * (compute + cpuToGpu + gpuToCpu));
    const four = { ...one, gpuBatchSize: 2, numGpuBatches: 4 };
    const overlapped = estimate(gatedModel, machine(), workload, four);
    const stages = Object.values(overlapped.stageSeconds.decode).reduce((sum, seconds) => sum + seconds, 0);
    expect(overlapped.decodeSeconds).toBeLessThan(0.9 * stages);
  });

  it('loads the weights once a step for all GPU batches', () => {
    const weights = (numGpuBatches: number) =>
      estimate(gatedModel, machine(), workload, { ...place({ weights: onCpu }), numGpuBatches }).trafficBytes.decode
        .cpuToGpu;
    const [two, eight] = [weights(2), weights(8)];
    expect(eight / two).toBeLessThan(1.1);
  });

  it('takes waking threads out of the time that computing would wait', () => {
    const wakeSeconds = 20e-6;
    const rates = machine().compute.gpu!;
    const parking = (profile = machine()) => ({
      ...profile,
      compute: { ...profile.compute, gpu: { ...rates, wakeSeconds: quantity(wakeSeconds) } },
    });
    const decodeSteps = 7;
    const { numLayers } = gatedModel;
    const added = (p: Policy) => {
      const [without, woken] = [machine(), parking()].map((hardware) => estimate(gatedModel, hardware, workload, p));
      expect(woken!.totalSeconds).toBe(without!.totalSeconds);
      return (woken!.stageSeconds.decode.compute - without!.stageSeconds.decode.compute) / wakeSeconds / decodeSteps;
    };
    expect(added(policy)).toBe(0);
    // Weights are waited for once a layer, and embedding needs none; KV cache by each of the two GPU batches.
    const weightLayers = added(place({ weights: onCpu }));
    expect(weightLayers).toBeGreaterThan(numLayers);
    expect(weightLayers).toBeLessThanOrEqual(numLayers + 2);
    const kvBatches = added({ ...place({ weights: onCpu, kvCache: onCpu }) });
    expect(kvBatches).toBeGreaterThan(2 * (numLayers - 1));
    expect(kvBatches).toBeLessThanOrEqual(2 * (numLayers + 2));
  });

  it('wakes the threads of CPU and device around attention on the CPU', () => {
    const base = machine('emulated');
    const { cpu } = base.compute;
    const sharing = { ...base, compute: { cpu } };
    const parked = { ...sharing, compute: { cpu: { ...cpu, wakeSeconds: quantity(30e-6) } } };
    const attended = { ...place({ kvCache: onCpu }), cpuAttentionFraction: 1 };
    const [without, woken] = [sharing, parked].map((hardware) => estimate(gatedModel, hardware, workload, attended));
    const wakes = 7 * gatedModel.numLayers * policy.numGpuBatches;
    const { compute: computing, cpuAttention } = woken!.stageSeconds.decode;
    expect(cpuAttention - without!.stageSeconds.decode.cpuAttention).toBeCloseTo(wakes * 30e-6, 9);
    expect(computing - without!.stageSeconds.decode.compute).toBeGreaterThanOrEqual(wakes * 30e-6 - 1e-12);
  });

  it('has neither gpu tier nor its links on a cpu device', () => {
    const cpu = place({ weights: { gpu: 0, cpu: 0.5, disk: 0.5 }, kvCache: onCpu, activations: onCpu });
    const { trafficBytes, peakBytes, stageSeconds, fits } = estimate(gatedModel, machine('cpu'), workload, {
      ...cpu,
      cpuAttentionFraction: 1,
    });
    expect(trafficBytes.decode).toMatchObject({ cpuToGpu: 0, gpuToCpu: 0 });
    expect(trafficBytes.decode.diskToCpu).toBeGreaterThan(0);
    expect(stageSeconds.decode.cpuAttention).toBe(0);
    expect(peakBytes.gpu).toBe(0);
    expect(fits.gpu).toBe(true);
    expect(() => estimate(gatedModel, machine('cpu'), workload, policy)).toThrow(/placement.weights.gpu to be 0/);
  });

  it('decodes no step when only one token is wanted', () => {
    const { decodeSeconds, bottleneck, genTokensPerSecond, prefillSeconds } = estimate(
      gatedModel,
      machine(),
      workloadFromNumbers(64, 1),
      policy,
    );
    expect(decodeSeconds).toBe(0);
    expect(bottleneck.decode).toBe('compute');
    expect(genTokensPerSecond).toBeCloseTo(8 / prefillSeconds, 9);
  });
});
