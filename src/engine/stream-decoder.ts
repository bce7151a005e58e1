/** Token ids, one at a time -> text as it grows, whole characters only. */
import type { Tokenizer } from './tokenizer.js';

/** What a decoder puts for bytes that are no character, or not one yet. */
const REPLACEMENT = '\uFFFD';

/**
 * A token may hold a part of a character, and what it decodes to may depend on the tokens before it (a leading space).
 * So the text of a new token is what it adds to the text of the few before it, held back while it ends in the middle
 * of a character. All pieces and `flush()` together are the decoded whole.
 */
export class StreamDecoder {
  readonly #ids: number[] = [];
  /** Ids before this one no longer matter. */
  #contextStart = 0;
  /** Ids before this one have been given out as text. */
  #given = 0;

  constructor(private readonly tokenizer: Tokenizer) {}

  /** The text that this token completes; may be empty. */
  push(id: number): string {
    this.#ids.push(id);
    const text = this.#pendingText();
    return text.endsWith(REPLACEMENT) ? '' : this.#give(text);
  }

  /** What was held back: bytes that never became a character. */
  flush(): string {
    return this.#give(this.#pendingText());
  }

  #pendingText(): string {
    const context = this.tokenizer.decode(this.#ids.slice(this.#contextStart, this.#given));
    return this.tokenizer.decode(this.#ids.slice(this.#contextStart)).slice(context.length);
  }

  #give(text: string): string {
    if (text !== '') {
      this.#contextStart = this.#given;
      this.#given = this.#ids.length;
    }
    return text;
  }
}
