/** Progress on standard error: a bar for people, a plain line now and then for logs. */
import cliProgress from 'cli-progress';

export interface Progress {
  /** `done` counts up to the total; `note` is shown behind the bar. */
  update(done: number, note: string): void;
  /** Idempotent; leaves the terminal clean. */
  stop(): void;
}

const PLAIN_LINE_EVERY_SECONDS = 5;

function plainProgress(title: string, total: number): Progress {
  let last = performance.now();
  return {
    update(done, note) {
      const now = performance.now();
      if (done < total && now - last < PLAIN_LINE_EVERY_SECONDS * 1000) return;
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
