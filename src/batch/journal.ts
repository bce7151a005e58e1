/** Results on their way to OUT: `OUT.partial` grows line by line and survives a kill; at the end it becomes OUT. */
import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { FlexplanError } from '../errors.js';

/** What a job is: two jobs with the same identity give the same results. */
interface JobIdentity {
  /** The text of the prompt file. */
  readonly input: string;
  /** Everything else that results depend on: model, its files, settings. */
  readonly settings: unknown;
}

export interface JournalOptions {
  readonly outputPath: string;
  readonly identity: JobIdentity;
  /** Whether an existing OUT may be replaced. */
  readonly overwrite: boolean;
}

function identityHash({ input, settings }: JobIdentity): string {
  return createHash('sha256').update(JSON.stringify(settings)).update('\0').update(input).digest('hex');
}

function syncFolder(path: string): void {
  const folder = openSync(dirname(path), 'r');
  fsyncSync(folder);
  closeSync(folder);
}

export class Journal {
  readonly #file: number;
  #closed = false;

  private constructor(
    private readonly outputPath: string,
    /** `custom_id` of the requests that an earlier run finished. */
    readonly finishedIds: ReadonlySet<string>,
  ) {
    this.#file = openForAppend(partialPath(outputPath));
  }

  /**
   * Starts a journal, or goes on with the one that an interrupted run of the same job left.
   * Throws `bad-input` when OUT exists, or when `OUT.partial` belongs to another job.
   */
  static open({ outputPath, identity, overwrite }: JournalOptions): Journal {
    if (existsSync(outputPath) && !overwrite) {
      throw new FlexplanError(
        'bad-input',
        `expected no file at ${outputPath}, got one; choose another output or give --overwrite`,
      );
    }
    const partial = partialPath(outputPath);
    const hash = identityHash(identity);
    if (existsSync(partial)) {
      checkSameJob(outputPath, hash);
      return new Journal(outputPath, recover(partial));
    }
    // The identity first: a partial file without it could not be resumed.
    writeWhole(identityPath(outputPath), hash);
    return new Journal(outputPath, new Set());
  }

  /** Appends the lines and waits until the disk has them. */
  append(lines: readonly string[]): void {
    if (lines.length === 0) return;
    const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(''));
    try {
      for (let written = 0; written < bytes.length;) written += writeSync(this.#file, bytes, written);
      fsyncSync(this.#file);
    } catch (error) {
      throw writeFault(this.outputPath, error as NodeJS.ErrnoException);
    }
  }

  /** All is done: `OUT.partial` becomes OUT. */
  finish(): void {
    this.suspend();
    renameSync(partialPath(this.outputPath), this.outputPath);
    rmSync(identityPath(this.outputPath), { force: true });
    syncFolder(this.outputPath);
  }

  /** Leaves `OUT.partial` for a later run. Idempotent: a fault while finishing leads here, too. */
  suspend(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#file);
  }

  /** Takes the files of a job away that never began: without a line there is nothing to go on with. */
  discardIfEmpty(): void {
    if (fstatSync(this.#file).size > 0) return;
    rmSync(partialPath(this.outputPath), { force: true });
    rmSync(identityPath(this.outputPath), { force: true });
  }
}

function partialPath(outputPath: string): string {
  return `${outputPath}.partial`;
}

function identityPath(outputPath: string): string {
  return `${outputPath}.partial.job`;
}

function openForAppend(path: string): number {
  try {
    return openSync(path, 'a');
  } catch (error) {
    throw writeFault(path, error as NodeJS.ErrnoException);
  }
}

function writeWhole(path: string, text: string): void {
  try {
    const file = openSync(path, 'w');
    writeSync(file, text);
    fsyncSync(file);
    closeSync(file);
    syncFolder(path);
  } catch (error) {
    throw writeFault(path, error as NodeJS.ErrnoException);
  }
}

function writeFault(path: string, error: NodeJS.ErrnoException): FlexplanError {
  if (error.code === 'ENOSPC') {
    return new FlexplanError(
      'no-disk-space',
      `expected room for results beside ${path}, got none; free some and run again`,
    );
  }
  return new FlexplanError('bad-input', `expected to write ${path}, got ${error.message}; choose another output`);
}

function checkSameJob(outputPath: string, hash: string): void {
  const path = identityPath(outputPath);
  const recorded = existsSync(path) ? readFileSync(path, 'utf8') : undefined;
  if (recorded !== hash) {
    throw new FlexplanError(
      'bad-input',
      `expected ${partialPath(outputPath)} to be of the same prompts, model and settings, got another job's; delete it or choose another output`,
    );
  }
}

/** The ids in the whole lines. What a kill or a crash left torn is cut off. */
function recover(partial: string): Set<string> {
  const ids = new Set<string>();
  const bytes = readFileSync(partial);
  let end = 0;
  for (let newline = bytes.indexOf('\n'); newline >= 0; newline = bytes.indexOf('\n', end)) {
    const id = customIdOf(bytes.toString('utf8', end, newline));
    if (id === undefined) break;
    ids.add(id);
    end = newline + 1;
  }
  if (end < bytes.length) truncateSync(partial, end);
  return ids;
}

function customIdOf(line: string): string | undefined {
  try {
    return (JSON.parse(line) as { custom_id?: string }).custom_id;
  } catch {
    return undefined;
  }
}
