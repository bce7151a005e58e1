/**
 * Hugging Face Accelerate with offloading: each module's weights are copied, then it computes; nothing is pinned,
 * nothing overlaps.
 */
import type { Baseline, BaselineFinder } from './baseline.js';
import { fitRowByRow, withWeightRate, type RowByRowSystem } from './row-by-row.js';

/**
 * It runs on the fastest tier that holds all weights. A tenth of the GPU is lost to its caching allocator: with that
 * the batches are those that were tuned for it on a T4 (2, 8, 2 for OPT 6.7B, 30B, 175B at 512 tokens; 4, 16, 4 at
 * 256).
 */
const ACCELERATE: RowByRowSystem = {
  weightTiers: ['gpu', 'cpu', 'disk'],
  deviceMemoryShare: 0.9,
  batchShare: 1,
  overlap: false,
};

/**
 * Where a profile does not say what pageable memory reaches: a third of pinned, as on the T4 machine (4 of 13 GB/s).
 */
const PAGEABLE_SHARE = 1 / 3;

export const accelerate: BaselineFinder = (model, hardware, workload): Baseline | undefined => {
  const pageable = withWeightRate(hardware, (pinned, known) => known ?? PAGEABLE_SHARE * pinned);
  const found = fitRowByRow(model, pageable, workload, ACCELERATE);
  return found && { system: 'Accelerate', ...found };
};
