#!/usr/bin/env node
/**
 * The command line: parses, runs one command, prints its result, and turns every failure into one line and an exit
 * status.
 */
import { FlexplanError } from '../errors.js';
import { parseCommandLine, type CliCommand } from './command.js';
import { estimateCommand } from './commands/estimate.js';
import { generateCommand } from './commands/generate.js';
import { modelsCommand } from './commands/models.js';
import { optimizeCommand } from './commands/optimize.js';
import { profileCommand } from './commands/profile.js';
import { profilesCommand } from './commands/profiles.js';
import { reportCommand } from './commands/report.js';
import { runCommand } from './commands/run.js';
import { validateCommand } from './commands/validate.js';
import { packageVersion } from './files.js';

const COMMANDS: readonly CliCommand[] = [
  profileCommand,
  optimizeCommand,
  estimateCommand,
  runCommand,
  validateCommand,
  generateCommand,
  modelsCommand,
  profilesCommand,
  reportCommand,
];
const INTERRUPTED = 130;

/** The first interrupt asks a command that listens to stop; any other interrupt ends the process. */
function interruptSignal(): () => AbortSignal {
  const controller = new AbortController();
  let listening = false;
  process.on('SIGINT', () => {
    if (!listening || controller.signal.aborted) process.exit(INTERRUPTED);
    controller.abort(new FlexplanError('interrupted', 'interrupted'));
  });
  return () => {
    listening = true;
    return controller.signal;
  };
}

async function runCommandLine(args: readonly string[]): Promise<void> {
  const listen = interruptSignal();
  await parseCommandLine(COMMANDS, packageVersion(), args, async (command, options) => {
    const json = options['json'] === true;
    const result = await command.run(options, {
      get signal() {
        return listen();
      },
      json,
      note: (line) => process.stderr.write(`${line}\n`),
    });
    process.exitCode = result.exitCode ?? 0;
    if (json) process.stdout.write(`${JSON.stringify(result.document, null, 2)}\n`);
    else (process.exitCode ? process.stderr : process.stdout).write(`${result.text()}\n`);
  });
}

/** One line whatever happened; the stack only when asked for. */
function fail(error: unknown, debug: boolean): void {
  const known = error instanceof FlexplanError;
  const message = error instanceof Error ? error.message : String(error);
  const line = known ? message : `internal error: ${message}; run it again with --debug for the stack`;
  process.stderr.write(`flexplan: ${line.replaceAll('\n', ' ')}\n`);
  if (debug && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  process.exitCode = known ? error.exitCode : 1;
}

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // A reader such as `head` that has seen enough is no failure.
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});
const args = process.argv.slice(2);
await runCommandLine(args).catch((error: unknown) => fail(error, args.includes('--debug')));
