import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { profileName } from '../../src/cli/commands/profile.js';
import type { HardwareProfile } from '../../src/hardware/hardware-profile.js';
import { documentOf, flexplan, start } from './cli.js';
import { temporaryFolder } from './temporary-folder.js';

const EMULATED = ['--device', 'emulated', '--gpu-memory', '8MiB', '--link-bandwidth', '50MB/s'];
const SET_LINK_RATE = 50e6;

describe('profile', () => {
  it('measures this machine and writes what it prints', async () => {
    const folder = temporaryFolder();
    const out = join(folder, 'mine.json');
    const outcome = await flexplan('profile', '--quick', ...EMULATED, '--disk-dir', folder, '--out', out, '--json');
    expect(outcome.code).toBe(0);
    const profile = documentOf(outcome) as unknown as HardwareProfile;
    expect(JSON.parse(readFileSync(out, 'utf8'))).toEqual(profile);
    expect(readdirSync(folder)).toEqual(['mine.json']);
    expect(profile).toMatchObject({ name: 'mine', device: 'emulated', memory: { gpuBytes: { value: 8 * 2 ** 20 } } });
    expect(profile.environment).toMatchObject({ effort: 'quick', linkBytesPerSecond: SET_LINK_RATE });
    // A paced copy is never faster than its pace; how much slower depends on the neighbours.
    const measured = profile.links.cpuToGpu!.bytesPerSecond.value;
    expect(measured).toBeGreaterThan(0.2 * SET_LINK_RATE);
    expect(measured).toBeLessThan(1.1 * SET_LINK_RATE);
    // Wide launches share the reading of the weights, so they do more work a second.
    const rates = profile.compute.cpu.matmul.map(({ flopsPerSecond }) => flopsPerSecond.value);
    expect(Math.max(...rates.slice(-4))).toBeGreaterThan(rates[0]!);
    expect(outcome.stderr).toContain('measuring');
    expect(outcome.seconds).toBeLessThan(60);
  });

  it('names the profile of a GPU after it', () => {
    expect(profileName('NVIDIA H100 80GB HBM3')).toBe('nvidia-h100-80gb-hbm3');
    expect(profileName('Tesla T4')).toBe('tesla-t4');
    expect(profileName('GeForce RTX 4090 (mobile)')).toBe('geforce-rtx-4090-mobile');
  });

  it('stops at an interrupt with 130, and leaves nothing behind', async () => {
    const folder = temporaryFolder();
    const out = join(folder, 'mine.json');
    const { child, outcome } = start(['profile', '--quick', '--device', 'cpu', '--disk-dir', folder, '--out', out]);
    child.stderr!.once('data', () => child.kill('SIGINT'));
    const { code, stdout, stderr } = await outcome;
    expect(code).toBe(130);
    expect(stdout).toBe('');
    expect(stderr.trim().split('\n').at(-1)).toMatch(/^flexplan: interrupted/);
    expect(existsSync(out)).toBe(false);
    expect(readdirSync(folder)).toEqual([]);
  });
});
