// Brings a fresh clone (or one after a pull) to the point where `npm test` and `npm run demo` can start: packages as
// the lock file says, native addon, TypeScript. Does nothing that is already done.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { createHash } from 'node:crypto';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stampFile = join(root, 'node_modules', '.flexplan-lock');
const lockHash = createHash('sha256')
  .update(readFileSync(join(root, 'package-lock.json')))
  .digest('hex');

function run(title, command, args) {
  process.stderr.write(`${title} ...\n`);
  const { status, error } = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  });
  if (status !== 0) {
    process.stderr.write(`${title} failed${error ? `: ${error.message}` : ''}\n`);
    process.exit(status || 1);
  }
}

const installed = existsSync(stampFile) && readFileSync(stampFile, 'utf8') === lockHash;
if (installed) {
  run('Building the native addon', process.execPath, ['scripts/install.mjs']);
} else {
  run('Installing packages and building the native addon', 'npm', ['ci', '--no-audit', '--no-fund']);
  writeFileSync(stampFile, lockHash);
}
run('Compiling TypeScript', process.execPath, ['node_modules/typescript/bin/tsc', '-p', '.', '--incremental']);
