// Builds the native engine into build/Release/flexplan.node. Planning needs no engine, so a machine without compiler is
// no failure. The CUDA device comes with it where nvcc 12 or newer is found, for every GPU from T4 on.
// FLEXPLAN_SKIP_NATIVE=1 skips the build, FLEXPLAN_CUDA=0 the CUDA device; FLEXPLAN_CUDA_ARCHS=90 (or "80;90") builds
// it for these GPUs alone, in a fraction of the time. A build that fails ends `npm run build:native` with an error, but
// not `npm install`.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
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

function cmake(args) {
  return spawnSync('cmake', args, { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 });
}

// Everything that the build says is kept for the one case in which it matters.
function giveUp({ stdout, stderr }) {
  process.stderr.write(`${stdout}${stderr}`);
  say('the native engine did not build (see above); planning works without it, running does not');
  process.exit(process.env.npm_lifecycle_event === 'install' ? 0 : 1);
}

const wantsCuda = process.env.FLEXPLAN_CUDA !== '0';
const cudaOptions = {
  FLEXPLAN_CUDA: wantsCuda ? 'ON' : 'OFF',
  FLEXPLAN_CUDA_ARCHS: process.env.FLEXPLAN_CUDA_ARCHS ?? '',
};

// What the build folder was configured with. One that was copied from elsewhere remembers paths that are not here.
function readCache() {
  const file = join(build, 'CMakeCache.txt');
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  const entries = new Map([...text.matchAll(/^(\w+):\w+=(.*)$/gm)].map(([, name, value]) => [name, value]));
  return entries.get('CMAKE_HOME_DIRECTORY') === source ? entries : undefined;
}

function configure(options) {
  const generator = runs('ninja') ? ['-G', 'Ninja'] : [];
  const definitions = Object.entries(options).map(([name, value]) => `-D${name}=${value}`);
  return cmake(['-S', source, '-B', build, '--fresh', ...generator, '-DCMAKE_BUILD_TYPE=Release', ...definitions]);
}

function buildAddon() {
  return cmake(['--build', build, '--target', 'flexplan_addon', '--parallel', String(availableParallelism())]);
}

const hasCuda = () => readCache()?.get('FLEXPLAN_HAS_CUDA') === 'ON';

function describeCuda() {
  const cache = readCache();
  if (hasCuda())
    return `with CUDA ${cache.get('FLEXPLAN_CUDA_VERSION')} for compute capabilities ${cache.get('FLEXPLAN_CUDA_TARGETS')}`;
  if (!wantsCuda) return 'without CUDA (FLEXPLAN_CUDA=0)';
  if (cache?.get('FLEXPLAN_CUDA_FAILED') === 'ON')
    return 'without CUDA (it did not compile; `npm run build:native` tries again)';
  return 'without CUDA (no nvcc 12 or newer that works)';
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
const addon = join(root, 'build', 'Release', 'flexplan.node');
const builtBefore = existsSync(addon) ? statSync(addon).mtimeMs : 0;
if (!builtBefore) say('building the native engine (a minute, with CUDA a few) ...');
const cache = readCache();
const isStale = !cache || Object.entries(cudaOptions).some(([name, value]) => cache.get(name) !== value);
const triesAgain = process.env.npm_lifecycle_event === 'build:native' && cache?.get('FLEXPLAN_CUDA_FAILED') === 'ON';
if (isStale || triesAgain) {
  const configured = configure(cudaOptions);
  if (configured.status !== 0) giveUp(configured);
}
let outcome = buildAddon();
// An engine without CUDA is better than none.
if (outcome.status !== 0 && hasCuda()) {
  process.stderr.write(`${outcome.stdout}${outcome.stderr}`);
  say('the CUDA device did not build (see above); building without it ...');
  configure({ ...cudaOptions, FLEXPLAN_CUDA_FAILED: 'ON' });
  outcome = buildAddon();
}
if (outcome.status !== 0) giveUp(outcome);
if (statSync(addon).mtimeMs !== builtBefore) say(`native engine built: ${describeCuda()}`);
