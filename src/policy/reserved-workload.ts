/** The workload whose zig-zag blocks take the memory that a policy's schedule takes. */
import { rememberedFor } from '../remembered.js';
import { reservedTokens } from '../workload/blocks.js';
import { jobSequences } from '../workload/sequences.js';
import type { Workload } from '../workload/workload.js';
import { blockSize, isDiagonal, type Policy } from './policy.js';

/** Zig-zag: the job's own. Diagonal: one block, each of whose slots has room for the longest prompt and the longest reservation. */
export function reservedWorkload(
  policy: Pick<Policy, 'schedule' | 'gpuBatchSize' | 'numGpuBatches'>,
  workload: Workload,
): Workload {
  return isDiagonal(policy) ? longestBlock(workload, blockSize(policy)) : workload;
}

const longestBlock = rememberedFor((workload: Workload, size: number): Workload => {
  const { lengths } = jobSequences(workload);
  const most = (of: (length: (typeof lengths)[number]) => number) =>
    lengths.reduce((largest, length) => Math.max(largest, of(length)), 0);
  const promptTokens = most((length) => length.promptTokens);
  const numSequences = workload.sequences?.length ?? workload.numSequences ?? size;
  return {
    promptTokens,
    genTokens: most(reservedTokens) - promptTokens + 1,
    numSequences: Math.min(numSequences, size),
  };
});
