import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { evaluate, placementPoint } from '../../src/cost-model/affine.js';
import { estimate, segmentSeconds } from '../../src/cost-model/estimate.js';
import { costTerms } from '../../src/cost-model/terms.js';
import { LINKS, STAGES, TIERS, type Link } from '../../src/tiers.js';
import { reservedTokens, workloadFromNumbers } from '../../src/workload/blocks.js';
import { hiddenBytes, kvRowBytes } from '../../src/models/tensors.js';
import type { HardwareProfile, LinkRate } from '../../src/hardware/hardware-profile.js';
import { anyModel, anyPolicy, anyWorkload } from './arbitraries.js';
import { gatedModel } from './examples.js';
import { machine, quantity } from './machines.js';

/** Rounding of sums of a few hundred terms. */
const EQUAL = 1 + 1e-9;

function withLink(link: Link, change: (rate: LinkRate) => Partial<LinkRate>): HardwareProfile {
  const hardware = machine();
  const rate = hardware.links[link]!;
  return { ...hardware, links: { ...hardware.links, [link]: { ...rate, ...change(rate) } } };
}

describe('the estimate', () => {
  it('is never slower with more bandwidth or less latency, on any link', () => {
    let faster = 0;
    fc.assert(
      fc.property(anyModel, anyPolicy, anyWorkload, fc.constantFrom(...LINKS), (model, policy, workload, link) => {
        const now = estimate(model, machine(), workload, policy).totalSeconds;
        const wider = withLink(link, ({ bytesPerSecond }) => ({ bytesPerSecond: quantity(2 * bytesPerSecond.value) }));
        const quicker = withLink(link, () => ({ latencySeconds: quantity(0) }));
        for (const better of [wider, quicker]) {
          const then = estimate(model, better, workload, policy).totalSeconds;
          expect(then).toBeLessThanOrEqual(now * EQUAL);
          if (then < now / EQUAL) faster++;
        }
      }),
    );
    expect(faster).toBeGreaterThan(30);
  });

  it('never takes KV cache on disk for faster than the same in RAM, also where KV cache crosses slowly', () => {
    let slower = 0;
    const kvRate = { kvCacheBytesPerSecond: quantity(1e7) };
    const pageable = withLink('cpuToGpu', () => kvRate);
    const share = fc.constantFrom(0, 0.5, 1);
    fc.assert(
      fc.property(anyModel, anyPolicy, anyWorkload, share, share, (model, policy, workload, away, attended) => {
        const secondsWith = (kvCache: { cpu: number; disk: number }) =>
          estimate(model, pageable, workload, {
            ...policy,
            placement: { ...policy.placement, kvCache: { gpu: 1 - away, ...kvCache } },
            cpuAttentionFraction: attended,
            diskKvCpuAttentionFraction: attended,
          }).totalSeconds;
        const inRam = secondsWith({ cpu: away, disk: 0 });
        const onDisk = secondsWith({ cpu: 0, disk: away });
        expect(inRam).toBeLessThanOrEqual(onDisk * EQUAL);
        if (inRam < onDisk / EQUAL) slower++;
      }),
    );
    expect(slower).toBeGreaterThan(10);
  });

  it('scales with all rates: a machine k times as fast takes a k-th of the time', () => {
    const slow = machine();
    const times = (rate: { value: number }, factor: number) => quantity(rate.value * factor);
    const k = 3;
    const fast = JSON.parse(JSON.stringify(slow)) as { -readonly [K in keyof HardwareProfile]: HardwareProfile[K] };
    fast.taskSeconds = times(slow.taskSeconds, 1 / k);
    fast.links = Object.fromEntries(
      Object.entries(slow.links).map(([name, { bytesPerSecond, latencySeconds }]) => [
        name,
        { bytesPerSecond: times(bytesPerSecond, k), latencySeconds: times(latencySeconds, 1 / k) },
      ]),
    ) as unknown as HardwareProfile['links'];
    fast.compute = Object.fromEntries(
      Object.entries(slow.compute).map(([name, rates]) => [
        name,
        {
          matmul: rates.matmul.map(({ tokens, flopsPerSecond }) => ({
            tokens,
            flopsPerSecond: times(flopsPerSecond, k),
          })),
          memoryBytesPerSecond: times(rates.memoryBytesPerSecond, k),
          attentionPrefillFlopsPerSecond: times(rates.attentionPrefillFlopsPerSecond, k),
          attentionDecodeBytesPerSecond: times(rates.attentionDecodeBytesPerSecond, k),
          launchSeconds: times(rates.launchSeconds, 1 / k),
        },
      ]),
    ) as unknown as HardwareProfile['compute'];
    fc.assert(
      fc.property(anyModel, anyPolicy, anyWorkload, (model, policy, workload) => {
        const ratio =
          estimate(model, slow, workload, policy).totalSeconds / estimate(model, fast, workload, policy).totalSeconds;
        expect(ratio).toBeCloseTo(k, 6);
      }),
    );
  });

  it('grows with the prompt, the generated tokens and the number of sequences', () => {
    fc.assert(
      fc.property(
        anyModel,
        anyPolicy,
        fc.integer({ min: 1, max: 30 }),
        fc.integer({ min: 2, max: 10 }),
        fc.integer({ min: 1, max: 30 }),
        (model, policy, promptTokens, genTokens, numSequences) => {
          const seconds = (s: number, g: number, n: number) =>
            estimate(model, machine(), workloadFromNumbers(s, g, n), policy).totalSeconds * EQUAL;
          const now = seconds(promptTokens, genTokens, numSequences) / EQUAL;
          expect(seconds(promptTokens + 1, genTokens, numSequences)).toBeGreaterThanOrEqual(now);
          expect(seconds(promptTokens, genTokens + 1, numSequences)).toBeGreaterThan(now);
          expect(seconds(promptTokens, genTokens, numSequences + 1)).toBeGreaterThanOrEqual(now);
        },
      ),
    );
  });

  it('with overlap is at least its longest link, at most the sum of all stages; without, it is the sum', () => {
    fc.assert(
      fc.property(anyModel, anyPolicy, anyWorkload, (model, policy, workload) => {
        const overlapped = estimate(model, machine(), workload, { ...policy, overlap: true });
        const serial = estimate(model, machine(), workload, { ...policy, overlap: false });
        expect(overlapped.stageSeconds).toEqual(serial.stageSeconds);
        for (const phase of ['prefill', 'decode'] as const) {
          const stages = STAGES.map((stage) => serial.stageSeconds[phase][stage]);
          expect(overlapped[`${phase}Seconds`] * EQUAL).toBeGreaterThanOrEqual(Math.max(...stages));
        }
        expect(overlapped.totalSeconds).toBeLessThanOrEqual(serial.totalSeconds * EQUAL);
      }),
    );
  });

  it('is the sum of its segments, each as long as its largest bound', () => {
    fc.assert(
      fc.property(anyModel, anyPolicy, anyWorkload, (model, policy, workload) => {
        const { segments, genTokens } = costTerms(model, machine(), workload, policy);
        const point = placementPoint(policy);
        const total = segments.reduce((sum, segment) => sum + segment.count * segmentSeconds(segment, point), 0);
        const { totalSeconds, genTokensPerSecond } = estimate(model, machine(), workload, policy);
        expect(totalSeconds / total).toBeCloseTo(1, 12);
        expect(genTokensPerSecond / (genTokens / total)).toBeCloseTo(1, 12);
        for (const segment of segments)
          for (const bound of segment.boundSeconds) expect(evaluate(bound, point)).toBeGreaterThanOrEqual(0);
      }),
    );
  });

  it('of a job is that of its blocks', () => {
    fc.assert(
      fc.property(anyModel, anyPolicy, fc.integer({ min: 1, max: 5 }), (model, policy, numBlocks) => {
        const blockSize = policy.gpuBatchSize * policy.numGpuBatches;
        const one = estimate(model, machine(), workloadFromNumbers(9, 5), policy);
        const all = estimate(model, machine(), workloadFromNumbers(9, 5, numBlocks * blockSize), policy);
        expect(all.totalSeconds / one.totalSeconds).toBeCloseTo(numBlocks, 9);
        expect(all.genTokensPerSecond / one.genTokensPerSecond).toBeCloseTo(1, 9);
        expect(all.peakBytes).toEqual(one.peakBytes);
      }),
    );
  });

  it('places at least the bytes that there are', () => {
    fc.assert(
      fc.property(anyModel, anyPolicy, anyWorkload, (model, policy, workload) => {
        const { peakBytes } = estimate(model, machine(), workload, policy, { realised: true });
        const blockSize = policy.gpuBatchSize * policy.numGpuBatches;
        const sequences = workload.sequences?.slice(0, blockSize) ?? [];
        const kvBytes =
          sequences.reduce((sum, length) => sum + reservedTokens(length), 0) * kvRowBytes(model, policy.kvCacheBits);
        const activations = sequences.reduce((sum, { promptTokens }) => sum + promptTokens, 0) * hiddenBytes(model);
        const placed = TIERS.reduce((sum, tier) => sum + peakBytes[tier], 0);
        expect(placed).toBeGreaterThan(model.numLayers * kvBytes + activations);
      }),
    );
  });

  it('summed over many segments is near that of every single step', () => {
    const onCpu = { gpu: 0, cpu: 1, disk: 0 };
    const policy = {
      gpuBatchSize: 8,
      numGpuBatches: 4,
      placement: { weights: onCpu, kvCache: onCpu, activations: { gpu: 1, cpu: 0, disk: 0 } },
      ...({ weightBits: 16, kvCacheBits: 16, quantGroupSize: 64, cpuAttentionFraction: 0, overlap: true } as const),
    };
    const total = (genTokens: number) =>
      estimate(gatedModel, machine(), workloadFromNumbers(16, genTokens), policy).decodeSeconds;
    // One more step costs what the last step costs: differences of neighbours are single steps.
    const steps = Array.from({ length: 300 }, (_, i) => stepSeconds(16, i + 1, policy));
    const exact = steps.reduce((sum, seconds) => sum + seconds, 0);
    expect(total(301) / exact).toBeGreaterThan(0.98);
    expect(total(301) / exact).toBeLessThan(1.0001);
  });
});

/**
 * Decode step `i` alone: that of a job whose prompt is longer by the tokens generated before, and which decodes once.
 */
function stepSeconds(promptTokens: number, step: number, policy: Parameters<typeof estimate>[3]): number {
  return estimate(gatedModel, machine(), workloadFromNumbers(promptTokens + step - 1, 2), policy).decodeSeconds;
}
