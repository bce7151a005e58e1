import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  compareRun,
  formatError,
  formatValue,
  rowCells,
  tableHead,
  throughputRow,
  tierLabel,
} from '../../src/report/comparison.js';
import { sampleRun } from './sample-run.js';

function tableOf(id: string, run = sampleRun) {
  return compareRun(run).find((table) => table.id === id)!;
}

describe('compareRun', () => {
  it('sets seconds per phase side by side', () => {
    expect(tableOf('time').rows.map((row) => rowCells(row, 'seconds'))).toEqual([
      ['prefill', '500 ms', '400 ms', '+25.0 %'],
      ['decode', '1.5 s', '1.6 s', '−6.3 %'],
      ['total', '2 s', '2 s', '+0.0 %'],
    ]);
  });

  it('leaves out stages and links with nothing on either side, and keeps what only one side has', () => {
    const labels = tableOf('stages').rows.map(({ label }) => label);
    expect(labels).toContain('decode: CPU attention');
    expect(labels).not.toContain('prefill: CPU attention');
    expect(labels).not.toContain('decode: RAM → disk');
    const stageSeconds = { ...sampleRun.stageSeconds, decode: { ...sampleRun.stageSeconds.decode, cpuToDisk: 0.5 } };
    const unforeseen = tableOf('stages', { ...sampleRun, stageSeconds }).rows.find(
      ({ label }) => label === 'decode: RAM → disk',
    )!;
    expect(unforeseen.predicted).toBe(0);
    expect(formatError(unforeseen)).toBe('−100.0 %');
  });

  it('sets peaks against caps, by the tiers that the run had', () => {
    expect(tableHead(tableOf('memory'))).toEqual(['', 'predicted', 'measured', 'error', 'cap']);
    expect(tableOf('memory').rows.map(({ label }) => label)).toEqual(['emulated GPU', 'RAM', 'disk']);
    const onCpu = { ...sampleRun, device: 'cpu' as const, capacityBytes: { ...sampleRun.capacityBytes, gpu: 0 } };
    expect(tableOf('memory', onCpu).rows.map(({ label }) => label)).toEqual(['RAM', 'disk']);
  });

  it('always says that an emulated GPU is one', () => {
    expect(tierLabel('gpu', 'emulated')).toBe('emulated GPU');
    expect(tierLabel('gpu', 'cuda')).toBe('GPU');
  });

  it('words the odd errors', () => {
    expect(formatError({ label: '', predicted: 0, measured: 0 })).toBe('–');
    expect(formatError({ label: '', predicted: 1, measured: 0 })).toBe('not seen');
    expect(formatError(throughputRow(sampleRun))).toBe('+0.0 %');
    expect(formatValue(1234.5, 'tokensPerSecond')).toBe('1,230 tok/s');
  });

  it('gives an error of the sign of predicted - measured', () => {
    const seconds = fc.double({ min: 1e-3, max: 1e3, noNaN: true });
    fc.assert(
      fc.property(seconds, seconds, (predicted, measured) => {
        const text = formatError({ label: '', predicted, measured });
        expect(text.startsWith(predicted < measured ? '−' : '+')).toBe(true);
      }),
    );
  });
});
