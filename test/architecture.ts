/**
 * Who may import whom: the table of docs/architecture.md as data, and the check that holds a tree of sources against
 * it.
 */

export interface SourceFile {
  /** Path from the repository root, with forward slashes. */
  readonly path: string;
  readonly text: string;
}

const BASE = ['tiers', 'units', 'errors', 'remembered', 'schema'];
const PLANNING = ['models', 'workload', 'hardware', 'policy'];

/** Module of src/ -> modules that it may import besides itself. `type:` in front: types only. */
const MODULE_IMPORTS: Readonly<Record<string, readonly string[]>> = {
  tiers: [],
  errors: [],
  remembered: [],
  units: ['errors'],
  schema: ['errors'],
  models: BASE,
  workload: BASE,
  hardware: BASE,
  policy: [...BASE, 'models', 'workload'],
  'cost-model': [...BASE, ...PLANNING],
  solver: [...BASE, ...PLANNING, 'cost-model'],
  simulator: [...BASE, ...PLANNING, 'cost-model'],
  engine: [...BASE, 'models', 'workload', 'policy'],
  batch: [...BASE, 'models', 'workload', 'policy', 'engine'],
  profiler: [...BASE, 'hardware', 'engine'],
  report: [...BASE, 'type:models', 'type:hardware', 'type:policy', 'type:cost-model', 'type:solver', 'type:engine'],
  index: [...BASE, ...PLANNING, 'cost-model', 'solver', 'simulator', 'engine', 'batch', 'profiler', 'report'],
  cli: [...BASE, ...PLANNING, 'cost-model', 'solver', 'simulator', 'engine', 'batch', 'profiler', 'report', 'index'],
};

/** Modules that also run in a browser: no `node:` import. */
const BROWSER_MODULES = [...BASE, ...PLANNING, 'cost-model', 'solver', 'simulator'];

/** Package (or prefix) -> the only places that may import it. */
const PACKAGE_HOMES: Readonly<Record<string, RegExp>> = {
  'glpk.js': /^src\/solver\/glpk\.ts$/,
  '#glpk': /^src\/solver\/glpk\.ts$/,
  mathjs: /^src\/cost-model\/calibration\.ts$/,
  'chart.js': /^src\/report\//,
  'chartjs-node-canvas': /^src\/report\//,
  '@napi-rs/canvas': /^src\/report\//,
  '@huggingface/': /^src\/engine\//,
  commander: /^src\/cli\//,
  'cli-progress': /^src\/cli\//,
  'cli-table3': /^src\/cli\//,
  picocolors: /^src\/cli\//,
  'node:fs': /^src\/(engine|batch|profiler|cli)\//,
};

/** Native directory -> directories that it may include from. */
const NATIVE_INCLUDES: Readonly<Record<string, readonly string[]>> = {
  core: [],
  quant: ['core'],
  cpu: ['core', 'quant'],
  tier: ['core'],
  model: ['core', 'quant', 'cpu', 'tier'],
  // A device of the model's layer. Its kernels take the emulation of the tests for CUDA's headers where nvcc does not
  // compile them.
  cuda: ['core', 'quant', 'cpu', 'tier', 'model', 'test'],
  engine: ['core', 'quant', 'cpu', 'cuda', 'tier', 'model'],
  bench: ['core', 'quant', 'cpu', 'cuda', 'tier', 'model', 'engine'],
  binding: ['core', 'quant', 'cpu', 'cuda', 'tier', 'model', 'engine', 'bench'],
  test: ['core', 'quant', 'cpu', 'cuda', 'tier', 'model', 'engine', 'bench'],
};

const IMPORT = /^\s*(?:import|export)\s+(type\s)?(?:[^'"]*?\sfrom\s+)?['"]([^'"]+)['"]/gm;
const DYNAMIC_IMPORT = /\bimport\(\s*['"]([^'"]+)['"]\s*\)/g;

function importsOf(text: string): { specifier: string; typeOnly: boolean }[] {
  return [
    ...[...text.matchAll(IMPORT)].map((m) => ({ specifier: m[2]!, typeOnly: m[1] !== undefined })),
    ...[...text.matchAll(DYNAMIC_IMPORT)].map((m) => ({ specifier: m[1]!, typeOnly: false })),
  ];
}

function resolveFrom(path: string, specifier: string): string {
  const parts = path.split('/').slice(0, -1);
  for (const step of specifier.split('/')) {
    if (step === '..') parts.pop();
    else if (step !== '.') parts.push(step);
  }
  return parts.join('/');
}

function moduleOf(path: string): string {
  return path.split('/')[1]!.replace(/\.(ts|js)$/, '');
}

function checkTypeScript(file: SourceFile): string[] {
  const from = moduleOf(file.path);
  const allowed = MODULE_IMPORTS[from];
  if (!allowed) return [`${file.path}: module "${from}" is not in the table`];
  return importsOf(file.text).flatMap(({ specifier, typeOnly }) => {
    if (!specifier.startsWith('.')) return checkPackage(file.path, from, specifier);
    const target = resolveFrom(file.path, specifier);
    if (!target.startsWith('src/'))
      return /\.json$/.test(target) ? [] : [`${file.path}: imports ${specifier} from outside src`];
    const to = moduleOf(target);
    const fits = to === from || allowed.includes(to) || (typeOnly && allowed.includes(`type:${to}`));
    return fits ? [] : [`${file.path}: "${from}" may not import "${to}"`];
  });
}

function checkPackage(path: string, from: string, specifier: string): string[] {
  const problems: string[] = [];
  if (specifier.startsWith('node:') && BROWSER_MODULES.includes(from))
    problems.push(`${path}: "${from}" runs in a browser and may not import ${specifier}`);
  for (const [name, home] of Object.entries(PACKAGE_HOMES)) {
    const hit = specifier === name || specifier.startsWith(name.endsWith('/') ? name : `${name}/`);
    if (hit && !home.test(path)) problems.push(`${path}: ${specifier} belongs to ${home.source}`);
  }
  return problems;
}

function checkNative(file: SourceFile): string[] {
  const from = file.path.split('/')[1]!;
  const allowed = NATIVE_INCLUDES[from];
  if (!allowed) return [`${file.path}: native directory "${from}" is not in the table`];
  return [...file.text.matchAll(/^\s*#\s*include\s+([<"])([^>"]+)[>"]/gm)].flatMap(([, bracket, name]) => {
    const where = name!.split('/');
    if (/^napi/.test(name!) && from !== 'binding') return [`${file.path}: <napi.h> belongs to native/binding`];
    if (/^cuda|^cublas/.test(name!) && bracket === '<' && from !== 'cuda' && from !== 'test')
      return [`${file.path}: CUDA headers belong to native/cuda and its tests`];
    if (bracket === '<' || where.length === 1) return [];
    const to = where[0]!;
    return to === from || allowed.includes(to) ? [] : [`${file.path}: native "${from}" may not include "${to}"`];
  });
}

/** Every breach of the table, one line each; empty when the house is in order. */
export function architectureProblems(files: readonly SourceFile[]): string[] {
  return files.flatMap((file) => (file.path.startsWith('native/') ? checkNative(file) : checkTypeScript(file)));
}
