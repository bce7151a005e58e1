/** All blocks of a job, as one set: what its largest buffers are found in. */
import { rememberedFor } from '../remembered.js';
import { inChunks, unionOf, type BlockSet } from './block-sets.js';

export interface WholeJob {
  /** Cut into GPU batches. */
  readonly batches: BlockSet;
  /** The same, cut into prefill chunks. */
  readonly chunks: BlockSet;
  /** Each block as if it were one batch. */
  readonly blocks: BlockSet;
}

export const wholeJob = rememberedFor((sets: readonly BlockSet[], chunkTokens: number): WholeJob => {
  const largestBlock = Math.max(...sets.flatMap(({ blocks }) => blocks.map(({ first, end }) => end - first)));
  const batches = unionOf(sets, sets[0]!.gpuBatchSize);
  return { batches, chunks: inChunks(batches, chunkTokens), blocks: unionOf(sets, largestBlock) };
});

/** Each sequence as if it were a batch. */
export function oneByOne({ batches }: WholeJob): BlockSet {
  return unionOf([batches], 1);
}
