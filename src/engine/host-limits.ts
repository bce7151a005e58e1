/**
 * What this process may use of the machine: less than all of it in a container, whose control group has limits of its
 * own.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { join } from 'node:path';

export interface HostLimits {
  /** CPUs, a started one counts. */
  readonly cpus: number;
  readonly totalMemoryBytes: number;
  /** Free, or taken by nothing but caches of files. */
  readonly availableMemoryBytes: number;
}

/**
 * Where limits are written, by version of control groups: https://docs.kernel.org/admin-guide/cgroup-v2.html,
 * .../cgroup-v1/memory.html.
 */
interface Controller {
  readonly mounts: readonly string[];
  readonly limit: string;
  readonly usage: string;
  /** Of memory.stat: pages of files, which the system gives back when others need them. */
  readonly fileCaches: readonly string[];
}

const MEMORY_V2: Controller = {
  mounts: ['sys/fs/cgroup', 'sys/fs/cgroup/unified'],
  limit: 'memory.max',
  usage: 'memory.current',
  fileCaches: ['active_file', 'inactive_file'],
};
const MEMORY_V1: Controller = {
  mounts: ['sys/fs/cgroup/memory'],
  limit: 'memory.limit_in_bytes',
  usage: 'memory.usage_in_bytes',
  fileCaches: ['total_active_file', 'total_inactive_file'],
};
const CPU_V2_MOUNTS = MEMORY_V2.mounts;
const CPU_V1_MOUNTS = ['sys/fs/cgroup/cpu', 'sys/fs/cgroup/cpu,cpuacct'];

/** `root`: where the system's files are found. */
export function hostLimits(root = '/'): HostLimits {
  const groups = memberships(root);
  const memory = [
    ...folders(root, MEMORY_V2.mounts, groups.get('')).map((folder) => memoryOf(folder, MEMORY_V2)),
    ...folders(root, MEMORY_V1.mounts, groups.get('memory')).map((folder) => memoryOf(folder, MEMORY_V1)),
  ];
  const quotas = [
    ...folders(root, CPU_V2_MOUNTS, groups.get('')).map((folder) => quotaOf(read(folder, 'cpu.max'))),
    ...folders(root, CPU_V1_MOUNTS, groups.get('cpu')).map((folder) =>
      quotaOf(`${read(folder, 'cpu.cfs_quota_us')} ${read(folder, 'cpu.cfs_period_us')}`),
    ),
  ];
  return {
    cpus: Math.min(availableParallelism(), ...quotas),
    totalMemoryBytes: Math.min(totalmem(), ...memory.map(({ limitBytes }) => limitBytes)),
    availableMemoryBytes: Math.min(freemem(), ...memory.map(({ availableBytes }) => availableBytes)),
  };
}

function read(folder: string, file: string): string {
  try {
    return readFileSync(join(folder, file), 'utf8').trim();
  } catch {
    return '';
  }
}

/** The group that this process is in, by controller; version 2 has one for all, under ''. */
function memberships(root: string): Map<string, string> {
  const lines = read(root, 'proc/self/cgroup').split('\n');
  return new Map(
    lines.flatMap((line) => {
      const [, controllers = '', ...path] = line.split(':');
      return controllers.split(',').map((controller): [string, string] => [controller, path.join(':')]);
    }),
  );
}

/** Folders of the group and of those that it is in. A container may see its own group as the outermost one. */
function folders(root: string, mounts: readonly string[], group: string | undefined): string[] {
  if (group === undefined) return [];
  const names = group.split('/').filter((name) => name !== '');
  const paths = [...names.keys(), names.length].map((depth) => names.slice(0, depth).join('/'));
  return mounts.flatMap((mount) => paths.map((path) => join(root, mount, path)));
}

/** Files say "max" or next to 2^63 where there is no limit. */
function memoryOf(folder: string, controller: Controller): { limitBytes: number; availableBytes: number } {
  const limitBytes = amount(read(folder, controller.limit));
  const usage = amount(read(folder, controller.usage));
  if (!Number.isFinite(limitBytes) || !Number.isFinite(usage)) return { limitBytes, availableBytes: Infinity };
  const stat = new Map(
    read(folder, 'memory.stat')
      .split('\n')
      .map((line) => line.split(' ') as [string, string]),
  );
  const caches = controller.fileCaches.reduce((sum, name) => sum + Number(stat.get(name) ?? 0), 0);
  return { limitBytes, availableBytes: Math.max(0, limitBytes - Math.max(0, usage - caches)) };
}

function amount(text: string): number {
  return /^\d+$/.test(text) ? Number(text) : Infinity;
}

/** CPUs of "quota period" in microseconds; no quota is "max" or -1. */
function quotaOf(text: string): number {
  const [quota = '', period = ''] = text.split(' ');
  const cpus = amount(quota) / amount(period);
  return cpus > 0 && cpus < Infinity ? Math.ceil(cpus) : Infinity;
}
