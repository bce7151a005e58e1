import { describe, expect, it } from 'vitest';
import { checkRunDocument, relativeError } from '../../src/report/run-document.js';
import { sampleRun } from './sample-run.js';

describe('run document', () => {
  it('reads back what was stored', () => {
    expect(checkRunDocument(JSON.parse(JSON.stringify(sampleRun)))).toEqual(sampleRun);
  });

  it.each<[string, object, string]>([
    ['an estimate', { source: 'estimated' }, 'source'],
    ['another version', { schemaVersion: 2 }, 'schemaVersion'],
    ['a missing time', { totalSeconds: undefined }, 'totalSeconds'],
    ['a negative time', { prefillSeconds: -1 }, 'prefillSeconds'],
    ['a stage left out', { stageSeconds: { ...sampleRun.stageSeconds, decode: {} } }, 'stageSeconds.decode'],
    ['no plan', { plan: 'mine' }, 'plan'],
  ])('refuses %s by the path of the field', (_, change, field) => {
    const document: unknown = JSON.parse(JSON.stringify({ ...sampleRun, ...change }));
    expect(() => checkRunDocument(document)).toThrow(field);
  });

  it('is relative to what was measured', () => {
    expect(relativeError(3, 2)).toBeCloseTo(0.5, 12);
    expect(relativeError(0, 0)).toBe(0);
  });
});
