import { describe, expect, it } from 'vitest';
import { profileMachine, type ProfileOptions } from '../../src/profiler/profile-machine.js';
import { fakeInstruments, GPU_SPEED, KNOWN, KNOWN_GPU } from './fake-instruments.js';

const OPTIONS: ProfileOptions = {
  name: 'known',
  device: 'emulated',
  quick: true,
  limits: { cpus: 2, totalMemoryBytes: 8e9, availableMemoryBytes: 6e9 },
  gpuMemoryBytes: 4 * 2 ** 20,
  linkBytesPerSecond: 200e6,
  diskDirectory: '/data',
  diskFreeBytes: 1e12,
  date: '2026-11-22T12:00:00.000Z',
  nodeVersion: 'v20.20.2',
};

describe('profileMachine', () => {
  it('recovers the rates of a machine whose rates are known, slow repetitions and all', async () => {
    const profile = await profileMachine(fakeInstruments(), OPTIONS);
    const { cpu } = profile.compute;
    const close = (quantity: { value: number } | undefined, value: number) =>
      expect(quantity!.value / value).toBeCloseTo(1, 4);
    close(cpu.launchSeconds, KNOWN.launchSeconds);
    close(cpu.wakeSeconds, KNOWN.wakeSeconds);
    close(cpu.memoryBytesPerSecond, KNOWN.memoryBytesPerSecond);
    for (const { flopsPerSecond } of cpu.matmul) close(flopsPerSecond, KNOWN.flopsPerSecond);
    for (const { flopsPerSecond } of cpu.narrowMatmul!.points) close(flopsPerSecond, KNOWN.narrowFlopsPerSecond);
    for (const { flopsPerSecond } of cpu.matmul4Bit!) close(flopsPerSecond, KNOWN.flopsPerSecond4Bit);
    close(cpu.attentionPrefillFlopsPerSecond, KNOWN.prefillFlopsPerSecond);
    close(cpu.attentionDecodeBytesPerSecond, KNOWN.decodeBytesPerSecond);
    close(cpu.attentionDecode4BitBytesPerSecond, KNOWN.decode4BitBytesPerSecond);
    close(profile.taskSeconds, KNOWN.taskSeconds);
    close(profile.links.diskToCpu.bytesPerSecond, KNOWN.diskRead.bytesPerSecond);
    close(profile.links.diskToCpu.latencySeconds, KNOWN.diskRead.latencySeconds);
    close(profile.links.cpuToDisk.bytesPerSecond, KNOWN.diskWrite.bytesPerSecond);
    close(profile.links.cpuToGpu!.bytesPerSecond, OPTIONS.linkBytesPerSecond);
    close(profile.links.gpuToCpu!.latencySeconds, KNOWN.linkLatencySeconds);
  });

  it('says what was measured and what was set', async () => {
    const profile = await profileMachine(fakeInstruments(), OPTIONS);
    expect(profile.memory.gpuBytes).toMatchObject({ value: 4 * 2 ** 20, source: 'set' });
    expect(profile.memory.cpuBytes.value).toBeCloseTo(0.9 * 6e9, 0);
    expect(profile.memory.diskBytes.value).toBeLessThan(1e12);
    expect(profile.compute.cpu.launchSeconds.source).toBe('measured');
    expect(profile.description).toMatch(/^Emulated GPU/);
    expect(profile.environment).toMatchObject({
      cpuName: 'Known CPU',
      numThreads: 2,
      totalMemoryBytes: 8e9,
      date: OPTIONS.date,
      linkBytesPerSecond: 200e6,
    });
  });

  it('has no gpu tier on a plain CPU', async () => {
    const profile = await profileMachine(fakeInstruments(), { ...OPTIONS, device: 'cpu' });
    expect(profile.memory.gpuBytes).toBeUndefined();
    expect(profile.links.cpuToGpu).toBeUndefined();
    expect(profile.environment).not.toHaveProperty('linkBytesPerSecond');
  });

  it('measures a GPU beside the CPU, and the link to it as it is', async () => {
    const machine = fakeInstruments([], [KNOWN_GPU]);
    const profile = await profileMachine(machine, { ...OPTIONS, device: 'cuda', gpuMemoryBytes: undefined });
    const { cpu, gpu } = profile.compute;
    const close = (quantity: { value: number } | undefined, value: number) =>
      expect(quantity!.value / value).toBeCloseTo(1, 4);
    close(cpu.memoryBytesPerSecond, KNOWN.memoryBytesPerSecond);
    close(gpu!.memoryBytesPerSecond, GPU_SPEED * KNOWN.memoryBytesPerSecond);
    close(gpu!.launchSeconds, KNOWN.launchSeconds / GPU_SPEED);
    close(gpu!.attentionDecodeBytesPerSecond, GPU_SPEED * KNOWN.decodeBytesPerSecond);
    for (const { flopsPerSecond } of gpu!.matmul) close(flopsPerSecond, GPU_SPEED * KNOWN.flopsPerSecond);
    for (const { flopsPerSecond } of gpu!.matmul4Bit!) close(flopsPerSecond, GPU_SPEED * KNOWN.flopsPerSecond4Bit);
    expect(Math.max(...gpu!.matmul.map(({ tokens }) => tokens))).toBeGreaterThan(1000);
    close(profile.links.cpuToGpu!.bytesPerSecond, KNOWN.pinnedBytesPerSecond);
    close(profile.links.gpuToCpu!.latencySeconds, KNOWN.linkLatencySeconds);
    expect(profile.memory.gpuBytes!.source).toBe('measured');
    expect(profile.memory.gpuBytes!.value).toBeLessThan(KNOWN_GPU.freeBytes!);
    expect(profile.memory.gpuBytes!.value).toBeGreaterThan(0.9 * KNOWN_GPU.freeBytes!);
    expect(profile.environment).toMatchObject({ gpuName: KNOWN_GPU.name, computeCapability: 90 });
    expect(profile.environment).not.toHaveProperty('linkBytesPerSecond');
  });

  it('caps a GPU where asked to, and has no other machine in its stead', async () => {
    const options = { ...OPTIONS, device: 'cuda', gpuMemoryBytes: 4e9 } as const;
    const capped = await profileMachine(fakeInstruments([], [KNOWN_GPU]), options);
    expect(capped.memory.gpuBytes).toMatchObject({ value: 4e9, source: 'set' });
    await expect(profileMachine(fakeInstruments(), options)).rejects.toMatchObject({ code: 'no-device' });
  });

  it.each(['cpu', 'emulated', 'cuda'] as const)('announces as many steps as it takes (%s)', async (device) => {
    const seen: number[] = [];
    const totals = new Set<number>();
    await profileMachine(fakeInstruments([], [KNOWN_GPU]), {
      ...OPTIONS,
      device,
      onStep: (_title, done, total) => {
        seen.push(done);
        totals.add(total);
      },
    });
    expect(totals.size).toBe(1);
    expect(seen).toEqual(Array.from({ length: [...totals][0]! }, (_, i) => i));
  });

  it('measures more when it is not quick', async () => {
    const quick: string[] = [];
    const thorough: string[] = [];
    await profileMachine(fakeInstruments(quick), OPTIONS);
    await profileMachine(fakeInstruments(thorough), { ...OPTIONS, quick: false });
    expect(thorough.length).toBeGreaterThan(quick.length);
  });

  it('stops between two measurements when interrupted', async () => {
    const controller = new AbortController();
    const calls: string[] = [];
    const profiling = profileMachine(fakeInstruments(calls), {
      ...OPTIONS,
      signal: controller.signal,
      onStep: (title) => {
        if (title.startsWith('matmul')) controller.abort();
      },
    });
    await expect(profiling).rejects.toMatchObject({ code: 'interrupted' });
    expect(calls).toHaveLength(1);
  });
});
