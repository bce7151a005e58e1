import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ROOT } from './cli.js';

const STATIC_IMPORT = /^(?:import|export)\s+(?!type\b)(?:[^'"]*?\sfrom\s+)?'([^']+)'/gm;

/** Everything that loading the files loads too: their own files as paths, packages by name. */
function loadedBy(...entries: string[]): Set<string> {
  const loaded = new Set<string>();
  const visit = (path: string): void => {
    if (loaded.has(path)) return;
    loaded.add(path);
    const text = readFileSync(join(ROOT, path), 'utf8');
    for (const [, specifier] of text.matchAll(STATIC_IMPORT)) {
      if (specifier!.startsWith('.')) visit(join(dirname(path), specifier!).replace(/\.js$/, '.ts'));
      else loaded.add(specifier!);
    }
  };
  entries.forEach(visit);
  return loaded;
}

const HEAVY = ['chartjs-node-canvas', 'chart.js', 'mathjs', '@huggingface/tokenizers', '@huggingface/jinja'];
const PLANNING = ['src/cli/main.ts', 'src/cli/plan-job.ts', 'src/cli/plan-text.ts'];

describe('what a command loads', () => {
  it('nothing but the command line until a command is chosen', () => {
    const loaded = [...loadedBy('src/cli/main.ts')];
    expect(loaded.length).toBeGreaterThan(10);
    const others = loaded.filter((path) => /^src\/(engine|batch|report|profiler|solver|cost-model)\/|^ajv$/.test(path));
    expect(others).toEqual([]);
  });

  it('planning needs no charts, no tokenizer, no calibration and no engine', () => {
    const loaded = loadedBy(...PLANNING);
    expect(loaded).toContain('src/solver/optimize.ts');
    for (const name of HEAVY) expect(loaded).not.toContain(name);
    expect([...loaded].filter((path) => /^src\/(engine|batch|report|profiler)\//.test(path))).toEqual([]);
  });

  it('is able to see what is loaded', () => {
    expect(loadedBy('src/cli/write-report.ts')).toContain('chartjs-node-canvas');
    expect(loadedBy('src/cli/run-job.ts')).toContain('@huggingface/tokenizers');
    for (const path of loadedBy('src/cli/run-job.ts'))
      if (path.startsWith('src/')) expect(existsSync(join(ROOT, path))).toBe(true);
  });
});
