/** One sequence's completion as it grows: text, stop strings, how it ended. */
import type { StepEvent } from './engine.js';
import { StreamDecoder } from './stream-decoder.js';
import type { Tokenizer } from './tokenizer.js';

export type FinishReason = 'stop' | 'length' | 'cancelled';

export interface CompletionText {
  readonly tokenIds: readonly number[];
  /** Absent without a tokenizer. Ends before the stop string that ended it. */
  readonly text?: string;
  readonly finishReason: FinishReason;
}

/** Collects one sequence. Tokens that arrive after a stop string was found are not part of it. */
export class CompletionBuilder {
  readonly #decoder: StreamDecoder | undefined;
  readonly #longestStop: number;
  #tokenIds: number[] = [];
  #text = '';
  #stopped = false;

  constructor(
    tokenizer: Tokenizer | undefined,
    private readonly stopStrings: readonly string[] = [],
  ) {
    this.#decoder = tokenizer && new StreamDecoder(tokenizer);
    this.#longestStop = Math.max(0, ...stopStrings.map((stop) => stop.length));
  }

  /** Takes the next token. True when the text now holds a stop string: the sequence should be cancelled. */
  push(tokenId: number): boolean {
    if (this.#stopped) return true;
    this.#tokenIds.push(tokenId);
    this.#append(this.#decoder?.push(tokenId) ?? '');
    return this.#stopped;
  }

  finish(reason: FinishReason): CompletionText {
    this.#append(this.#decoder?.flush() ?? '');
    const finishReason = this.#stopped ? 'stop' : reason;
    return { tokenIds: this.#tokenIds, ...(this.#decoder ? { text: this.#text } : {}), finishReason };
  }

  #append(piece: string): void {
    if (this.#stopped || piece === '') return;
    // A stop string may have begun in what was there before.
    const from = Math.max(0, this.#text.length - this.#longestStop + 1);
    this.#text += piece;
    const found = this.stopStrings.map((stop) => this.#text.indexOf(stop, from)).filter((index) => index >= 0);
    if (found.length === 0) return;
    this.#text = this.#text.slice(0, Math.min(...found));
    this.#stopped = true;
  }
}

/** What a run tells of one sequence that has just ended. */
export interface FinishedSequence {
  readonly sequence: number;
  readonly completion: CompletionText;
}

/** The builders of all sequences of a run, fed by its steps. */
export class CompletionCollector {
  constructor(
    private readonly builders: readonly CompletionBuilder[],
    private readonly cancelSequence: (sequence: number) => void,
  ) {}

  /** Takes a step; gives the sequences that ended with it. */
  step({ sequences, tokenIds, finished }: StepEvent): FinishedSequence[] {
    sequences.forEach((sequence, i) => {
      if (this.builders[sequence]!.push(tokenIds[i]!)) this.cancelSequence(sequence);
    });
    return finished.map(({ sequence, finishReason }) => ({
      sequence,
      completion: this.builders[sequence]!.finish(finishReason),
    }));
  }
}
