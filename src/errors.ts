/**
 * What went wrong, as a word a program can test.
 * - `usage`, `bad-input`, `unsupported`, `wrong-model`, `no-device`: the caller's to mend (exit 2)
 * - `infeasible`: no policy fits (exit 3)
 * - `interrupted`: the user stopped it (exit 130)
 * - `out-of-memory`, `no-disk-space`, `native-missing`, `engine-died`, `engine`: the job failed (exit 1)
 */
export type ErrorCode =
  | 'usage'
  | 'bad-input'
  | 'unsupported'
  | 'wrong-model'
  | 'no-device'
  | 'infeasible'
  | 'interrupted'
  | 'out-of-memory'
  | 'no-disk-space'
  | 'native-missing'
  | 'engine-died'
  | 'engine';

const EXIT_CODES: Readonly<Record<ErrorCode, number>> = {
  usage: 2,
  'bad-input': 2,
  unsupported: 2,
  'wrong-model': 2,
  'no-device': 2,
  infeasible: 3,
  interrupted: 130,
  'out-of-memory': 1,
  'no-disk-space': 1,
  'native-missing': 1,
  'engine-died': 1,
  engine: 1,
};

/**
 * Every foreseen failure. The message is one line: what was expected, what came, what to do. Control characters of what
 * came (a name in a downloaded file, say) are left out, so that it stays one line and does nothing to a terminal.
 */
export class FlexplanError extends Error {
  override readonly name = 'FlexplanError';

  constructor(
    readonly code: ErrorCode,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message.replace(/\p{Cc}+/gu, ' '), options);
  }

  get exitCode(): number {
    return EXIT_CODES[this.code];
  }
}
