// Builds the native engine into build/Release/flexplan.node. Planning needs no engine, so a machine without compiler is no failure.
// FLEXPLAN_SKIP_NATIVE=1 skips the build. A build that fails ends `npm run build:native` with an error, but not `npm install`.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const source = join(root, 'native');
const build = join(root, 'build', 'native');
const say = (line) => process.stderr.write(`flexplan: ${line}\n`);

const runs = (command) => spawnSync(command, ['--version'], { stdio: 'ignore' }).status === 0;
const compilers = [process.env.CXX, 'c++', 'g++', 'clang++'].filter(Boolean);

function missing() {
  if (process.platform === 'win32') return 'a system other than Windows (WSL works)';
  if (!runs('cmake')) return 'cmake 3.24 or newer';
  if (!compilers.some(runs)) return 'a C++20 compiler (g++ 12 or clang++ 15)';
  return undefined;
}

// Everything that the build says is kept for the one case in which it matters.
function run(args) {
  const { status, stdout, stderr } = spawnSync('cmake', args, { cwd: root, encoding: 'utf8' });
  if (status === 0) return;
  process.stderr.write(`${stdout}${stderr}`);
  say('the native engine did not build (see above); planning works without it, running does not');
  process.exit(process.env.npm_lifecycle_event === 'install' ? 0 : 1);
}

// A build folder that was copied from elsewhere remembers paths that are not here.
function isConfigured() {
  const cache = join(build, 'CMakeCache.txt');
  return existsSync(cache) && readFileSync(cache, 'utf8').includes(`CMAKE_HOME_DIRECTORY:INTERNAL=${source}\n`);
}

if (process.env.FLEXPLAN_SKIP_NATIVE === '1') {
  say('native engine skipped (FLEXPLAN_SKIP_NATIVE=1)');
  process.exit(0);
}
const lack = missing();
if (lack) {
  say(
    `native engine not built: ${lack} is missing. Planning works without it; to run models install it, then: npm run build:native`,
  );
  process.exit(0);
}
if (!existsSync(join(root, 'build', 'Release', 'flexplan.node')))
  say('building the native engine (about a minute) ...');
if (!isConfigured()) {
  const generator = runs('ninja') ? ['-G', 'Ninja'] : [];
  run(['-S', source, '-B', build, '--fresh', ...generator, '-DCMAKE_BUILD_TYPE=Release']);
}
run(['--build', build, '--target', 'flexplan_addon', '--parallel', String(availableParallelism())]);
