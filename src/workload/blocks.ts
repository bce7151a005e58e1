/** A job as the engine takes it: sequences in file order, `blockSize` at a time. */
import { FlexplanError } from '../errors.js';
import type { SequenceLength, Workload } from './workload.js';

/** `count` blocks alike. `sequences[b]` sits in slot b; the last block of a job may fill only the first slots. */
export interface BlockGroup {
  readonly count: number;
  readonly sequences: readonly SequenceLength[];
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
  if (workload.sequences) return blocksOfSequences(workload.sequences, blockSize);
  const numSequences = workload.numSequences ?? blockSize;
  const alike = (count: number, size: number): BlockGroup => ({
    count,
    sequences: new Array<SequenceLength>(size).fill(workload),
  });
  const numFull = Math.floor(numSequences / blockSize);
  const rest = numSequences % blockSize;
  return [...(numFull > 0 ? [alike(numFull, blockSize)] : []), ...(rest > 0 ? [alike(1, rest)] : [])];
}

/** KV rows that a sequence reserves in each layer: the last generated token never becomes one. */
export function reservedTokens({ promptTokens, genTokens }: SequenceLength): number {
  return promptTokens + Math.max(genTokens, 1) - 1;
}

/** Tokens that the job generates, every sequence to its full length. */
export function totalGenTokens(blocks: readonly BlockGroup[]): number {
  return blocks.reduce(
    (sum, { count, sequences }) => sum + count * sequences.reduce((tokens, { genTokens }) => tokens + genTokens, 0),
    0,
  );
}

function blocksOfSequences(sequences: readonly SequenceLength[], blockSize: number): BlockGroup[] {
  const numBlocks = Math.ceil(sequences.length / blockSize);
  return Array.from({ length: numBlocks }, (_, block) => ({
    count: 1,
    sequences: sequences.slice(block * blockSize, (block + 1) * blockSize),
  }));
}

function checkCount(name: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1)
    throw new FlexplanError(
      'bad-input',
      `expected ${name} to be a whole number of at least 1, got ${value}; change it`,
    );
}
