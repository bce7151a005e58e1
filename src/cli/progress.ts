/** Progress on standard error: a bar for people, a plain line now and then for logs. */
import cliProgress from 'cli-progress';
import { MILLISECONDS_PER_SECOND } from '../units.js';

export interface Progress {
  /** `done` counts up to the total; `note` is shown behind the bar. */
  update(done: number, note: string): void;
  /** Idempotent; leaves the terminal clean. */
  stop(): void;
}

const PLAIN_LINE_EVERY_SECONDS = 5;

function plainProgress(title: string, total: number): Progress {
  let last = -Infinity;
  return {
    update(done, note) {
      const now = performance.now();
      if (done < total && now - last < PLAIN_LINE_EVERY_SECONDS * MILLISECONDS_PER_SECOND) return;
      last = now;
      process.stderr.write(`${title} ${Math.floor((100 * done) / total)} %  ${note}\n`);
    },
    stop: () => undefined,
  };
}

function barProgress(title: string, total: number): Progress {
  const bar = new cliProgress.SingleBar(
    {
      format: `${title} {bar} {percentage} %  {note}`,
      stream: process.stderr,
      hideCursor: true,
      clearOnComplete: true,
      barsize: 28,
      linewrap: false,
    },
    cliProgress.Presets.shades_classic,
  );
  bar.start(total, 0, { note: '' });
  return {
    update: (done, note) => bar.update(done, { note }),
    stop: () => bar.stop(),
  };
}

export function startProgress(title: string, total: number): Progress {
  return process.stderr.isTTY ? barProgress(title, total) : plainProgress(title, total);
}

/** How far back a rate looks: long enough to be steady, short enough to notice the next phase. */
const RATE_WINDOW_SECONDS = 10;

/**
 * Units per second over the last seconds, given the count so far; undefined until there is an interval to take it over.
 */
export function recentRate(
  clockSeconds: () => number = () => performance.now() / MILLISECONDS_PER_SECOND,
): (count: number) => number | undefined {
  const samples: { readonly at: number; readonly count: number }[] = [];
  return (count) => {
    const at = clockSeconds();
    samples.push({ at, count });
    while (samples.length > 2 && samples[1]!.at < at - RATE_WINDOW_SECONDS) samples.shift();
    const first = samples[0]!;
    return at > first.at && count > first.count ? (count - first.count) / (at - first.at) : undefined;
  };
}
