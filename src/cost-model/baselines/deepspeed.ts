/**
 * DeepSpeed ZeRO-Inference: weights always offloaded, to RAM or else to disk, and fetched ahead tensor by tensor from
 * pinned memory.
 */
import type { Baseline, BaselineFinder } from './baseline.js';
import { fitRowByRow, withWeightRate, type RowByRowSystem } from './row-by-row.js';

/**
 * Gathered tensors, prefetch buckets and their fragmentation take as much room as half of the sequences: the batches
 * tuned for it on a T4 (16, 4, 1 for OPT 6.7B, 30B, 175B at 512 tokens; 32, 8, 2 at 256) are half of what would fit.
 */
const ZERO_INFERENCE: RowByRowSystem = {
  weightTiers: ['cpu', 'disk'],
  deviceMemoryShare: 0.9,
  batchShare: 1 / 2,
  overlap: true,
};

/** Gathering one tensor at a time attains this share of the link: 8.9 of 13 GB/s in the published OPT-30B run. */
const GATHER_SHARE = 0.68;

export const deepSpeed: BaselineFinder = (model, hardware, workload): Baseline | undefined => {
  const gathered = withWeightRate(hardware, (pinned) => GATHER_SHARE * pinned);
  const found = fitRowByRow(model, gathered, workload, ZERO_INFERENCE);
  return found && { system: 'DeepSpeed ZeRO-Inference', ...found };
};
