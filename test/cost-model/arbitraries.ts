/** Random models, policies and workloads for properties. */
import fc from 'fast-check';
import type { Policy, TierFractions } from '../../src/policy/policy.js';
import { workloadFromNumbers, workloadFromSequences } from '../../src/workload/blocks.js';
import { exampleModels } from './examples.js';

export const anyModel = fc.constantFrom(...exampleModels);

/** Fractions in steps of 1/20, corners included. */
export const anyFractions: fc.Arbitrary<TierFractions> = fc
  .tuple(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 20 }))
  .map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const)
  .map(([low, high]) => ({ gpu: low / 20, cpu: (high - low) / 20, disk: (20 - high) / 20 }));

export const anyPolicy: fc.Arbitrary<Policy> = fc.record({
  gpuBatchSize: fc.integer({ min: 1, max: 6 }),
  numGpuBatches: fc.integer({ min: 1, max: 4 }),
  placement: fc.record({ weights: anyFractions, kvCache: anyFractions, activations: anyFractions }),
  weightBits: fc.constantFrom(16, 4),
  kvCacheBits: fc.constantFrom(16, 4),
  quantGroupSize: fc.constant(64),
  cpuAttentionFraction: fc.constantFrom(0, 0.25, 0.5, 1),
  diskKvCpuAttentionFraction: fc.constantFrom(0, 0.5, 1),
  overlap: fc.boolean(),
});

const anyLength = (promptTokens: fc.Arbitrary<number>) =>
  fc.record({ promptTokens, genTokens: fc.integer({ min: 1, max: 12 }) });

/** One length for all, or a list of different ones. */
const workloadOf = (length: ReturnType<typeof anyLength>) =>
  fc.oneof(
    fc
      .tuple(length, fc.option(fc.integer({ min: 1, max: 50 }), { nil: undefined }))
      .map(([{ promptTokens, genTokens }, numSequences]) => workloadFromNumbers(promptTokens, genTokens, numSequences)),
    fc.array(length, { minLength: 1, maxLength: 40 }).map(workloadFromSequences),
  );

const shortPrompt = fc.integer({ min: 1, max: 40 });
export const anyWorkload = workloadOf(anyLength(shortPrompt));

/** With prompts that are longer than a sliding window and several chunks of attention. */
export const anyLongWorkload = workloadOf(anyLength(fc.oneof(shortPrompt, fc.integer({ min: 60, max: 150 }))));

/** The same policy on a device without gpu tier: what it had there is in RAM. */
export function withoutGpu(policy: Policy): Policy {
  const onCpu = ({ disk }: TierFractions) => ({ gpu: 0, cpu: 1 - disk, disk });
  const { weights, kvCache, activations } = policy.placement;
  return {
    ...policy,
    placement: { weights: onCpu(weights), kvCache: onCpu(kvCache), activations: onCpu(activations) },
  };
}
