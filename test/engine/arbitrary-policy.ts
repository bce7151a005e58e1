/** Policies at random: all tiers, batch shapes, overlap, devices, where attention runs. */
import fc from 'fast-check';
import type { Policy, TierFractions } from '../../src/policy/policy.js';
import type { Device } from '../../src/tiers.js';

/** Often whole, so that "all on disk" and "nothing on gpu" are met. */
function fractions(device: Device): fc.Arbitrary<TierFractions> {
  const share = fc.oneof(fc.constantFrom(0, 1), fc.double({ min: 0, max: 1, noNaN: true }));
  return fc.tuple(share, share).map(([first, second]) => {
    const gpu = device === 'cpu' ? 0 : first;
    const cpu = (1 - gpu) * second;
    return { gpu, cpu, disk: 1 - gpu - cpu };
  });
}

export interface Case {
  readonly device: Device;
  readonly policy: Policy;
}

export function arbitraryCase(bits: Pick<Policy, 'weightBits' | 'kvCacheBits'>): fc.Arbitrary<Case> {
  return fc.constantFrom<Device>('emulated', 'emulated', 'cpu').chain((device) =>
    fc
      .record({
        gpuBatchSize: fc.integer({ min: 1, max: 7 }),
        numGpuBatches: fc.integer({ min: 1, max: 4 }),
        placement: fc.record({
          weights: fractions(device),
          kvCache: fractions(device),
          activations: fractions(device),
        }),
        quantGroupSize: fc.constant(64),
        cpuAttentionFraction: fc.constantFrom(0, 0.5, 1),
        diskKvCpuAttentionFraction: fc.constantFrom(0, 0.5, 1),
        prefillChunkTokens: fc.constantFrom(4, 20, 2048),
        overlap: fc.boolean(),
      })
      .map((policy) => ({ device, policy: { ...policy, ...bits } })),
  );
}
