import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { loadNative } from '../../src/engine/load-native.js';
import { FlexplanError } from '../../src/errors.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();

function failure(path: string): FlexplanError {
  try {
    loadNative(path);
  } catch (error) {
    if (error instanceof FlexplanError) return error;
  }
  throw new Error('expected a FlexplanError');
}

test.each([
  ['none', undefined],
  ['one that is no library', 'not a library'],
])('an addon that cannot be loaded says what to do: %s', (_, content) => {
  const path = join(folder, `${String(content === undefined)}.node`);
  if (content !== undefined) writeFileSync(path, content);
  const { code, message } = failure(path);
  expect(code).toBe('native-missing');
  for (const part of [path, process.platform, process.version, 'cmake', 'compiler', 'npm run build:native']) {
    expect(message).toContain(part);
  }
  expect(message).not.toContain('\n');
});
