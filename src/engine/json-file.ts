/** JSON files of a model folder. */
import { readFile } from 'node:fs/promises';
import { FlexplanError } from '../errors.js';

/** The parsed file, or undefined where there is none. Throws `bad-input` when it is not JSON. */
export async function readJsonIfThere(path: string): Promise<unknown> {
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
    throw new FlexplanError('bad-input', `expected to read ${path}, got ${error.message}; check its permissions`);
  });
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new FlexplanError(
      'bad-input',
      `expected JSON in ${path}, got ${(error as Error).message}; download it again`,
    );
  }
}
