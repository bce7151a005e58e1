/**
 * A command is a value: options declared once with their types, one run, one result that prints as a table or as JSON.
 */
import { Command as Parser, CommanderError, Option } from 'commander';
import { FlexplanError } from '../errors.js';

/**
 * One option. `parse` turns the text into the value; `required` is checked here, so that the message says what to do.
 */
export interface OptionSpec<T> {
  readonly flags: string;
  readonly help: string;
  readonly parse?: (text: string) => unknown;
  readonly required?: boolean;
  /** Type only, never set. */
  readonly type?: T;
}

export type OptionSpecs = Readonly<Record<string, OptionSpec<unknown>>>;
export type Options<S extends OptionSpecs> = { readonly [K in keyof S]: S[K] extends OptionSpec<infer T> ? T : never };

/** What a command gets besides its options. */
export interface Context {
  /** Aborts at the first interrupt. A command that never reads it is ended at once instead. */
  readonly signal: AbortSignal;
  readonly json: boolean;
  /** Notes and progress: standard error. */
  note(line: string): void;
}

export interface CommandResult {
  /** Printed by `--json`, and then it is all that standard output gets. */
  readonly document: unknown;
  /** What a person reads instead. */
  readonly text: () => string;
  /** 0 unless said otherwise; then the text goes to standard error. */
  readonly exitCode?: number;
}

export interface CliCommand {
  readonly name: string;
  readonly summary: string;
  readonly example: string;
  readonly options: OptionSpecs;
  run(options: Readonly<Record<string, unknown>>, context: Context): Promise<CommandResult>;
}

/** Ties the type of `run`'s options to the declared ones. */
export function defineCommand<S extends OptionSpecs>(command: {
  readonly name: string;
  readonly summary: string;
  readonly example: string;
  readonly options: S;
  readonly run: (options: Options<S>, context: Context) => Promise<CommandResult>;
}): CliCommand {
  return { ...command, run: (options, context) => command.run(options as Options<S>, context) };
}

function toParserOption({ flags, help, parse }: OptionSpec<unknown>): Option {
  const option = new Option(flags, help);
  if (!parse) return option;
  return option.argParser((text: string, previous: unknown) =>
    option.variadic ? [...((previous as unknown[] | undefined) ?? []), parse(text)] : parse(text),
  );
}

function checkRequired(command: CliCommand, options: Readonly<Record<string, unknown>>): void {
  for (const [key, spec] of Object.entries(command.options)) {
    if (spec.required && options[key] === undefined)
      throw new FlexplanError(
        'usage',
        `expected ${spec.flags}, got nothing; for example: ${command.example.split('\n')[0]}`,
      );
  }
}

export type Dispatch = (command: CliCommand, options: Readonly<Record<string, unknown>>) => Promise<void>;

function addCommand(parser: Parser, command: CliCommand, dispatch: Dispatch): void {
  const sub = parser.command(command.name).description(command.summary).helpOption('-h, --help', 'show this help');
  for (const spec of Object.values(command.options)) sub.addOption(toParserOption(spec));
  sub.option('--json', 'print one JSON document and nothing else on standard output');
  sub.option('--debug', 'show the stack of an error');
  sub.addHelpText('after', `\nExample:\n  ${command.example.replaceAll('\n', '\n  ')}`);
  sub.action(async (options: Record<string, unknown>) => {
    checkRequired(command, options);
    await dispatch(command, options);
  });
}

/**
 * Parses the command line and dispatches. Throws FlexplanError `usage` on a slip; help and version print and return.
 */
export async function parseCommandLine(
  commands: readonly CliCommand[],
  version: string,
  args: readonly string[],
  dispatch: Dispatch,
): Promise<void> {
  const parser = new Parser('flexplan')
    .description('Plans and runs large-model batch jobs on machines with less GPU memory than model.')
    .version(version, '-V, --version', 'show the version')
    .helpOption('-h, --help', 'show this help')
    .helpCommand(false)
    .configureOutput({ outputError: () => undefined })
    .exitOverride();
  for (const command of commands) addCommand(parser, command, dispatch);
  if (args.length === 0) return parser.outputHelp();
  try {
    await parser.parseAsync([...args], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode !== 0) throw usageError(error, commands, args);
  }
}

/** Commander's words as one line, with the place to look. */
function usageError(error: CommanderError, commands: readonly CliCommand[], args: readonly string[]): FlexplanError {
  const known = commands.some(({ name }) => name === args[0]);
  const words = error.message
    .replace(/^error: /, '')
    .replace(/\n\((Did you mean .*)\?\)/s, (_, hint: string) => `; ${hint.replace('Did', 'did')}?`)
    .replaceAll('\n', ' ')
    .replace(/\.$/, '');
  return new FlexplanError('usage', `${words}; see flexplan ${known ? `${args[0]} ` : ''}--help`, { cause: error });
}
