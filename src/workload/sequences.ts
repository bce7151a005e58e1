/**
 * A job's sequences in order, and sums over stretches of them: a prompt file is walked once for each amount, not once
 * for each question.
 */
import type { SequenceLength, Workload } from './workload.js';

/**
 * What a sequence contributes to a sum. Sums are remembered by the identity of the function: pass constants where it is
 * asked again.
 */
export type Amount = (length: SequenceLength) => number;

export const promptTokensOf: Amount = ({ promptTokens }) => promptTokens;
export const oneSequence: Amount = () => 1;

/** Stretches are `first <= n < end`. */
export interface JobSequences {
  /** Any two stretches of as many sequences are alike. */
  readonly alike: boolean;
  /** Each length that occurs, at least once. */
  readonly lengths: readonly SequenceLength[];
  /** All prompts begin with the same so many tokens, which the first of a block computes for all. */
  readonly sharedPromptTokens: number;
  sum(amount: Amount, first: number, end: number): number;
  /** The most that a sequence of the stretch generates; 0 of an empty one. */
  mostGenTokens(first: number, end: number): number;
  /** How many sequences of the stretch generate so many tokens, the most tokens first. */
  genTokensDescending(first: number, end: number): readonly GenTokensCount[];
}

interface GenTokensCount {
  readonly genTokens: number;
  numSequences: number;
}

const known = new WeakMap<Workload, JobSequences>();

/** The sequences of a job; of one without a number of sequences as many as are asked for. */
export function jobSequences(workload: Workload): JobSequences {
  let sequences = known.get(workload);
  if (!sequences) {
    const { sharedPromptTokens = 0 } = workload;
    sequences = workload.sequences
      ? new ListedSequences(workload.sequences, sharedPromptTokens)
      : new AlikeSequences(workload, sharedPromptTokens);
    known.set(workload, sequences);
  }
  return sequences;
}

class AlikeSequences implements JobSequences {
  readonly alike = true;
  readonly lengths: readonly SequenceLength[];

  constructor(
    private readonly length: SequenceLength,
    readonly sharedPromptTokens: number,
  ) {
    this.lengths = [length];
  }

  sum(amount: Amount, first: number, end: number): number {
    return (end - first) * amount(this.length);
  }

  mostGenTokens(first: number, end: number): number {
    return end > first ? this.length.genTokens : 0;
  }

  genTokensDescending(first: number, end: number): GenTokensCount[] {
    return [{ genTokens: this.length.genTokens, numSequences: end - first }];
  }
}

/** More than any number of sequences. */
const STRETCH_STRIDE = 2 ** 26;

class ListedSequences implements JobSequences {
  readonly alike = false;
  /** Of each amount the sums of the first 0, 1, 2, ... sequences. */
  readonly #sums = new WeakMap<Amount, Float64Array>();

  readonly #genTokens = new Map<number, readonly GenTokensCount[]>();

  constructor(
    readonly lengths: readonly SequenceLength[],
    readonly sharedPromptTokens: number,
  ) {}

  sum(amount: Amount, first: number, end: number): number {
    const sums = this.#sumsOf(amount);
    return sums[end]! - sums[first]!;
  }

  mostGenTokens(first: number, end: number): number {
    let most = 0;
    for (let n = first; n < end; n++) most = Math.max(most, this.lengths[n]!.genTokens);
    return most;
  }

  genTokensDescending(first: number, end: number): readonly GenTokensCount[] {
    const key = first * STRETCH_STRIDE + end;
    const counts = this.#genTokens.get(key) ?? this.#countGenTokens(first, end);
    this.#genTokens.set(key, counts);
    return counts;
  }

  #countGenTokens(first: number, end: number): GenTokensCount[] {
    const ends = Float64Array.from(this.lengths.slice(first, end), ({ genTokens }) => genTokens)
      .sort()
      .reverse();
    const counts: GenTokensCount[] = [];
    for (const genTokens of ends) {
      const last = counts[counts.length - 1];
      if (last?.genTokens === genTokens) last.numSequences += 1;
      else counts.push({ genTokens, numSequences: 1 });
    }
    return counts;
  }

  #sumsOf(amount: Amount): Float64Array {
    let sums = this.#sums.get(amount);
    if (!sums) {
      const { lengths } = this;
      sums = new Float64Array(lengths.length + 1);
      for (let n = 0; n < lengths.length; n++) sums[n + 1] = sums[n]! + amount(lengths[n]!);
      this.#sums.set(amount, sums);
    }
    return sums;
  }
}
