import { describe, expect, it } from 'vitest';
import type { NativeTraceEvent } from '../../src/engine/native-addon.js';
import { chromeTrace } from '../../src/report/chrome-trace.js';

const event: NativeTraceEvent = {
  task: 'compute',
  startSeconds: 0.5,
  endSeconds: 0.75,
  block: 0,
  step: 3,
  layer: 2,
  gpuBatch: 1,
};

describe('chromeTrace', () => {
  it('gives every task kind a row, and every task a span in microseconds', () => {
    const { traceEvents } = chromeTrace([event, { ...event, task: 'loadWeights', step: 0 }], 'opt on emulated');
    const spans = traceEvents.filter((e) => (e as { ph: string }).ph === 'X') as Record<string, unknown>[];
    const names = traceEvents.filter((e) => (e as { name: string }).name === 'thread_name');
    expect(names).toHaveLength(6);
    expect(spans).toHaveLength(2);
    expect(spans[0]).toMatchObject({ ts: 500_000, dur: 250_000, cat: 'compute', args: { phase: 'decode', layer: 2 } });
    expect(spans[1]).toMatchObject({ cat: 'loadWeights', args: { phase: 'prefill' } });
    expect(spans[0]!['tid']).not.toBe(spans[1]!['tid']);
    expect(() => JSON.stringify(traceEvents)).not.toThrow();
  });
});
