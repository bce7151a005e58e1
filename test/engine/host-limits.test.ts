/** A container's limits, read from trees of files as the kernel writes them. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { hostLimits } from '../../src/engine/host-limits.js';
import { GIB, MIB } from '../../src/units.js';
import { temporaryFolder } from './temporary-folder.js';

const parent = temporaryFolder();
let trees = 0;

function tree(files: Readonly<Record<string, string | number>>): string {
  const root = join(parent, `root${trees++}`);
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), `${text}\n`);
  }
  return root;
}

const memoryOf = (root: string) => {
  const { totalMemoryBytes, availableMemoryBytes } = hostLimits(root);
  return { totalMemoryBytes, availableMemoryBytes };
};

test('without control groups all of the machine', () => {
  const { cpus, totalMemoryBytes } = hostLimits(tree({ 'proc/version': 'Linux' }));
  expect(cpus).toBe(availableParallelism());
  expect(totalMemoryBytes).toBe(totalmem());
});

test('this machine has no more free than it has', () => {
  const { cpus, totalMemoryBytes, availableMemoryBytes } = hostLimits();
  expect(cpus).toBeGreaterThanOrEqual(1);
  expect(availableMemoryBytes).toBeGreaterThan(0);
  expect(availableMemoryBytes).toBeLessThanOrEqual(totalMemoryBytes);
});

test('version 2: file caches count as free', () => {
  const group = 'sys/fs/cgroup/user.slice/job';
  const root = tree({
    'proc/self/cgroup': '0::/user.slice/job',
    'sys/fs/cgroup/user.slice/memory.max': 'max',
    [`${group}/memory.max`]: 100 * MIB,
    [`${group}/memory.current`]: 70 * MIB,
    [`${group}/memory.stat`]: `anon ${30 * MIB}\nfile ${40 * MIB}\ninactive_file ${25 * MIB}\nactive_file ${15 * MIB}`,
    [`${group}/cpu.max`]: '100000 100000',
  });
  expect(memoryOf(root)).toEqual({ totalMemoryBytes: 100 * MIB, availableMemoryBytes: 70 * MIB });
  expect(hostLimits(root).cpus).toBe(1);
});

test('the tightest of the groups that a process is in decides', () => {
  const root = tree({
    'proc/self/cgroup': '0::/outer/inner',
    'sys/fs/cgroup/outer/memory.max': 50 * MIB,
    'sys/fs/cgroup/outer/memory.current': 45 * MIB,
    'sys/fs/cgroup/outer/inner/memory.max': 80 * MIB,
    'sys/fs/cgroup/outer/inner/memory.current': 10 * MIB,
  });
  expect(memoryOf(root)).toEqual({ totalMemoryBytes: 50 * MIB, availableMemoryBytes: 5 * MIB });
});

test('version 1, in a container that sees its own group as the outermost', () => {
  const root = tree({
    'proc/self/cgroup': '5:cpu,cpuacct:/docker/0123\n4:memory:/docker/0123\n0::/',
    'sys/fs/cgroup/memory/memory.limit_in_bytes': 64 * MIB,
    'sys/fs/cgroup/memory/memory.usage_in_bytes': 60 * MIB,
    'sys/fs/cgroup/memory/memory.stat': `cache ${50 * MIB}\ninactive_file 1\ntotal_inactive_file ${20 * MIB}\ntotal_active_file 0`,
    'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us': 40000,
    'sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us': 100000,
  });
  expect(memoryOf(root)).toEqual({ totalMemoryBytes: 64 * MIB, availableMemoryBytes: 24 * MIB });
  expect(hostLimits(root).cpus).toBe(1);
});

test('no limit, in the words of either version', () => {
  const root = tree({
    'proc/self/cgroup': '4:memory:/\n5:cpu:/\n0::/',
    'sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712',
    'sys/fs/cgroup/memory/memory.usage_in_bytes': GIB,
    'sys/fs/cgroup/cpu/cpu.cfs_quota_us': -1,
    'sys/fs/cgroup/cpu/cpu.cfs_period_us': 100000,
    'sys/fs/cgroup/cpu.max': 'max 100000',
  });
  const { cpus, totalMemoryBytes } = hostLimits(root);
  expect(totalMemoryBytes).toBe(totalmem());
  expect(cpus).toBe(availableParallelism());
});
