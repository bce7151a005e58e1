/** A job as the engine takes it: sequences in file order, `blockSize` at a time. */
import { FlexplanError } from '../errors.js';
import { jobSequences } from './sequences.js';
import type { SequenceLength, Workload } from './workload.js';

/**
 * `count` blocks alike. Sequence `first + b < end` of the job sits in slot b; the last block may fill only the first
 * slots.
 */
export interface BlockGroup {
  readonly count: number;
  readonly first: number;
  readonly end: number;
}

/** Throws `bad-input` unless all are whole numbers of at least 1. */
export function workloadFromNumbers(promptTokens: number, genTokens: number, numSequences?: number): Workload {
  checkCount('promptTokens', promptTokens);
  checkCount('genTokens', genTokens);
  if (numSequences === undefined) return { promptTokens, genTokens };
  checkCount('numSequences', numSequences);
  return { promptTokens, genTokens, numSequences };
}

/** The exact lengths of a prompt file, in the order in which they will run. Throws `bad-input` when there are none. */
export function workloadFromSequences(sequences: readonly SequenceLength[]): Workload {
  if (sequences.length === 0)
    throw new FlexplanError('bad-input', 'expected at least one sequence in the workload, got none; give it prompts');
  let promptTokens = 0;
  let genTokens = 0;
  for (const sequence of sequences) {
    checkCount('promptTokens', sequence.promptTokens);
    checkCount('genTokens', sequence.genTokens);
    promptTokens = Math.max(promptTokens, sequence.promptTokens);
    genTokens = Math.max(genTokens, sequence.genTokens);
  }
  return { promptTokens, genTokens, numSequences: sequences.length, sequences };
}

/** The job's blocks in order. Without a number of sequences: one full block. */
export function jobBlocks(workload: Workload, blockSize: number): readonly BlockGroup[] {
  const numSequences = workload.sequences?.length ?? workload.numSequences ?? blockSize;
  const numFull = Math.floor(numSequences / blockSize);
  const full = numFull * blockSize;
  const last = numSequences > full ? [{ count: 1, first: full, end: numSequences }] : [];
  if (!jobSequences(workload).alike)
    return [
      ...Array.from({ length: numFull }, (_, b) => ({ count: 1, first: b * blockSize, end: (b + 1) * blockSize })),
      ...last,
    ];
  return [...(numFull > 0 ? [{ count: numFull, first: 0, end: blockSize }] : []), ...last];
}

/** KV rows that a sequence reserves in each layer: the last generated token never becomes one. */
export function reservedTokens({ promptTokens, genTokens }: SequenceLength): number {
  return promptTokens + Math.max(genTokens, 1) - 1;
}

/** Tokens that the blocks generate, every sequence to its full length. */
export function totalGenTokens(workload: Workload, blocks: readonly BlockGroup[]): number {
  const sequences = jobSequences(workload);
  return blocks.reduce((total, { count, first, end }) => total + count * sequences.sum(genTokensOf, first, end), 0);
}

const genTokensOf = ({ genTokens }: SequenceLength): number => genTokens;

function checkCount(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1)
    throw new FlexplanError(
      'bad-input',
      `expected ${name} to be a whole number of at least 1, got ${value}; change it`,
    );
}
