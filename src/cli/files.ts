/** Documents and results on disk: read with an error that names the file, written whole or not at all. */
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FlexplanError } from '../errors.js';

export const PACKAGE_ROOT = fileURLToPath(new URL('../../', import.meta.url));

export function packageVersion(): string {
  return (JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { version: string }).version;
}

/** Throws `bad-input` that names the file. `what` says what it should have been: "a plan". */
function readText(path: string, what: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const reason = (error as NodeJS.ErrnoException).code ?? String(error);
    throw new FlexplanError('bad-input', `expected ${what} in ${path}, got ${reason}; check the path`, {
      cause: error,
    });
  }
}

/** Throws `bad-input` that names the file and the place. */
export function readJson(path: string, what: string): unknown {
  const text = readText(path, what);
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = (error as Error).message.replaceAll('\n', ' ');
    throw new FlexplanError(
      'bad-input',
      `expected ${what} as JSON in ${path}, got text that does not parse: ${reason}`,
    );
  }
}

/** Runs a check on a document and puts the file's name in front of what it says. */
export function checked<T>(path: string, check: () => T): T {
  try {
    return check();
  } catch (error) {
    if (!(error instanceof FlexplanError)) throw error;
    throw new FlexplanError(error.code, `${path}: ${error.message}`, { cause: error });
  }
}

/** Writes beside the target and renames, so that a reader sees the old file or the new one, never a half. */
export function writeFileAtomic(path: string, content: string | Uint8Array): void {
  const partial = `${path}.${process.pid}.partial`;
  try {
    mkdirSync(dirname(resolve(path)), { recursive: true });
    writeFileSync(partial, content);
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    const { code } = error as NodeJS.ErrnoException;
    throw new FlexplanError(
      code === 'ENOSPC' ? 'no-disk-space' : 'bad-input',
      `expected to write ${path}, got ${code ?? String(error)}; choose another place`,
      { cause: error },
    );
  }
}

export function writeJson(path: string, document: unknown): void {
  writeFileAtomic(path, `${JSON.stringify(document, null, 2)}\n`);
}
