import { describe, expect, it } from 'vitest';
import { recentRate } from '../../src/cli/progress.js';

describe('recentRate', () => {
  it('says nothing until there is an interval', () => {
    const rate = recentRate(() => 5);
    expect(rate(64)).toBeUndefined();
    expect(rate(128)).toBeUndefined();
  });

  it('does not count what was there at the first look: a block starts with all its first tokens at once', () => {
    let now = 0;
    const rate = recentRate(() => now);
    rate(64);
    now = 2;
    expect(rate(128)).toBe(32);
  });

  it('follows a change of speed within its window', () => {
    let now = 0;
    const rate = recentRate(() => now);
    for (; now < 60; now++) rate(100 * now);
    for (; now < 72; now++) rate(6000 + 10 * (now - 60));
    expect(rate(6000 + 10 * 12)).toBeLessThan(15);
  });
});
