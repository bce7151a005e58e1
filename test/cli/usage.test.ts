import { describe, expect, it } from 'vitest';
import { flexplan } from './cli.js';

const T4 = ['--hw', 't4', '--model', 'facebook/opt-30b'];
const JOB = [...T4, '--prompt-tokens', '512', '--gen-tokens', '32'];
const PERCENT = ['--percent', '0', '100', '0', '100', '0', '100', '--gpu-batch-size', '4'];
const COMMANDS = ['profile', 'optimize', 'estimate', 'run', 'generate', 'models', 'profiles', 'report'];

describe('help', () => {
  it('lists every command, with and without --help', async () => {
    for (const args of [[], ['--help']]) {
      const { code, stdout } = await flexplan(...args);
      expect(code).toBe(0);
      for (const name of COMMANDS) expect(stdout).toMatch(new RegExp(`^ {2}${name} `, 'm'));
    }
  });

  it.each(COMMANDS)('%s --help shows options and an example', async (name) => {
    const { code, stdout } = await flexplan(name, '--help');
    expect(code).toBe(0);
    expect(stdout).toContain('--json');
    expect(stdout).toMatch(new RegExp(`Example:\\n {2}flexplan ${name}`));
  });

  it('shows the version', async () => {
    expect((await flexplan('--version')).stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });
});

describe('bad usage', () => {
  it.each<[string, string[], RegExp]>([
    ['a mistyped command', ['optmize'], /unknown command 'optmize'.*optimize/],
    ['a mistyped option', ['optimize', '--gpu-memroy', '4GiB'], /unknown option '--gpu-memroy'.*--gpu-memory/],
    ['an argument too many', ['models', 'all'], /too many arguments.*flexplan models --help/],
    ['a missing value', ['optimize', '--hw'], /'--hw <profile>' argument missing/],
    ['a missing model', ['optimize', '--hw', 't4'], /expected --model <model>, got nothing.*for example/],
    ['a missing workload', ['optimize', ...T4], /expected --prompt-tokens N and --gen-tokens N/],
    ['an unknown machine', ['optimize', '--hw', 't5', '--model', 'opt-30b'], /"t5".*t4/],
    ['an unknown model', ['estimate', '--hw', 't4', '--model', 'opt-30c', ...PERCENT], /"opt-30c".*opt-30b/],
    ['a size without a number', ['optimize', ...JOB, '--gpu-memory', 'lots'], /--gpu-memory: expected a size.*"lots"/],
    ['a rate', ['profile', '--link-bandwidth', '4 parsecs'], /--link-bandwidth: expected a rate.*parsecs/],
    ['half a prompt', ['estimate', ...T4, '--prompt-tokens', '0.5'], /--prompt-tokens: expected a whole number/],
    ['no tokens', ['estimate', ...T4, '--gen-tokens', '0'], /--gen-tokens: expected a whole number of at least 1/],
    ['three bits', ['optimize', ...JOB, '--weight-bits', '3'], /--weight-bits: expected one of 16, 4, auto, got "3"/],
    ['a device that is none', ['run', '--device', 'tpu'], /--device: expected one of auto, cuda, cpu, emulated/],
    ['no policy', ['estimate', ...JOB], /expected --policy FILE, or --percent/],
    ['two policies', ['estimate', ...JOB, ...PERCENT, '--policy', 'x.json'], /expected --policy alone, got --percent/],
    [
      'five percentages',
      ['estimate', ...JOB, '--percent', '1', '2', '3', '4', '5', '--gpu-batch-size', '4'],
      /six percentages/,
    ],
    [
      'percentages above 100',
      ['estimate', ...JOB, '--percent', '60', '60', '0', '100', '0', '100', '--gpu-batch-size', '4'],
      /60 and 60/,
    ],
    [
      'a file that is not there',
      ['estimate', ...JOB, '--policy', 'nowhere.json'],
      /expected a policy in nowhere.json, got ENOENT/,
    ],
    ['no prompt', ['generate', '--model', 'examples/opt-kjv-5m'], /expected --prompt TEXT or --prompt-ids IDS/],
    ['ids that are none', ['generate', '--model', 'x', '--prompt-ids', '2,b'], /token ids such as 2,15,7, got "2,b"/],
    [
      'plan and profile',
      ['run', '--model', 'x', '--input', 'x', '--output', 'x', '--plan', 'x', '--hw', 't4'],
      /--plan or --hw, got both/,
    ],
    [
      'a folder of no results',
      ['report', '--from', 'src', '--out', 'demo-out/none'],
      /expected results.* in src, got none/,
    ],
    [
      'a folder that is not there',
      ['profile', '--disk-dir', 'nowhere/at/all'],
      /expected a folder for --disk-dir, got ".*nowhere.at.all"/,
    ],
  ])('%s is one line on standard error and exit 2', async (_, args, message) => {
    const { code, stdout, stderr } = await flexplan(...args);
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd()).not.toContain('\n');
    expect(stdout).toBe('');
    expect(code).toBe(2);
  });

  it('shows a stack with --debug alone', async () => {
    const args = ['estimate', '--hw', 't5', '--model', 'x', ...PERCENT];
    expect((await flexplan(...args)).stderr).not.toContain('    at ');
    expect((await flexplan(...args, '--debug')).stderr).toContain('    at ');
  });
});
