import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { architectureProblems, type SourceFile } from './architecture.js';

const root = new URL('../', import.meta.url);

function sources(directory: string, extensions: RegExp): SourceFile[] {
  return readdirSync(new URL(directory, root), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && extensions.test(entry.name))
    .map((entry) => `${entry.parentPath.replace(/\/$/, '')}/${entry.name}`.slice(root.pathname.length))
    .map((path) => ({ path, text: readFileSync(new URL(path, root), 'utf8') }));
}

describe('architecture', () => {
  it('TypeScript modules import only what the table allows', () => {
    const files = sources('src/', /\.ts$/);
    expect(files.length).toBeGreaterThan(30);
    expect(architectureProblems(files)).toEqual([]);
  });

  it('native directories include only what the table allows', () => {
    const files = sources('native/', /\.(h|cpp|cu|cuh)$/);
    expect(files.length).toBeGreaterThan(10);
    expect(architectureProblems(files)).toEqual([]);
  });

  it.each<[string, string, string]>([
    ['src/cost-model/x.ts', `import { solve } from '../solver/glpk.js';`, '"cost-model" may not import "solver"'],
    [
      'src/engine/x.ts',
      `import {\n  estimate,\n} from '../cost-model/estimate.js';`,
      '"engine" may not import "cost-model"',
    ],
    ['src/models/x.ts', `import type { Policy } from '../policy/policy.js';`, '"models" may not import "policy"'],
    ['src/solver/x.ts', `import glpk from 'glpk.js/node';`, 'glpk.js/node belongs to'],
    ['src/solver/x.ts', `import { readFileSync } from 'node:fs';`, 'may not import node:fs'],
    ['src/report/x.ts', `import { Engine } from '../engine/engine.js';`, '"report" may not import "engine"'],
    ['src/batch/x.ts', `export * from '../cli/main.js';`, '"batch" may not import "cli"'],
    ['src/cost-model/x.ts', `const m = await import('mathjs');`, 'mathjs belongs to'],
    ['src/attic/x.ts', '', 'not in the table'],
    ['native/engine/x.cpp', '#include <napi.h>', '<napi.h> belongs to'],
    ['native/cpu/x.h', '#include "engine/run.h"', '"cpu" may not include "engine"'],
    ['native/tier/x.cpp', '#include <cuda_runtime.h>', 'CUDA headers belong to'],
  ])('is able to fail: %s with %s', (path, text, problem) => {
    const problems = architectureProblems([{ path, text }]);
    expect(problems.length).toBeGreaterThan(0);
    expect(problems.join('\n')).toContain(problem);
  });

  it('lets a report import the types of results, not their code', () => {
    const text = `import type { Estimate } from '../cost-model/estimate-types.js';`;
    expect(architectureProblems([{ path: 'src/report/x.ts', text }])).toEqual([]);
  });
});
