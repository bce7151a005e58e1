/**
 * Writes the hardware profiles of machines that nobody measured yet, from their datasheets: `npm run
 * profiles:datasheet`. Datasheets give peaks; the shares of them that programs attain are stated here, once, and in
 * each number's note.
 */
import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';

const GB = 1e9;
const GIB = 2 ** 30;
const TERA = 1e12;

/** Shares of a datasheet's peak that a good program attains. */
const ATTAINED = {
  matmul: { datacentre: 0.7, desktop: 0.75, laptop: 0.6, cpu: 0.6 },
  memory: { gpu: 0.85, cpu: 0.75 },
  prefillAttention: 0.5,
  decodeAttention: 0.8,
  decodeAttention4Bit: 0.5,
  /** Of the 16-bit rate, by kernels that unpack as they multiply; and of the bandwidth, reading packed weights. */
  cpu4Bit: { matmul: 0.8, memory: 0.7 },
};

/** A group of 64 weights: 32 bytes of nibbles, scale and minimum. */
const BYTES_PER_4BIT_WEIGHT = 36 / 64;

/** Attained bytes per second: measured on many machines, about 80 % of the lane rate, pinned memory. */
const PCI_EXPRESS = { '3x16': 12.5 * GB, '4x8': 12.5 * GB, '4x16': 25 * GB, '5x16': 50 * GB };
const PCI_LATENCY_SECONDS = 10e-6;

/** Left to driver, context and operating system. */
const GPU_RESERVE_BYTES = 0.5 * GIB;
const CPU_RESERVED_SHARE = 0.08;

/** Sustained, direct I/O: writes past the fast cache. */
const DISKS = {
  nvmeGen3: { read: 3 * GB, write: 1 * GB, latency: 100e-6 },
  nvmeGen4: { read: 6 * GB, write: 2 * GB, latency: 80e-6 },
  nvmeGen5: { read: 10 * GB, write: 4 * GB, latency: 80e-6 },
  nvmeRaid: { read: 12 * GB, write: 6 * GB, latency: 100e-6 },
};

/** fp32 peak FLOP/s (cores x clock x vector width x 2), memory channels' bytes/s. */
const CPUS = {
  laptop: { name: '8 laptop cores, DDR5-4800 x 2', flops: 0.6 * TERA, memory: 76 * GB },
  desktop: { name: '16 desktop cores (Ryzen 9 7950X class), DDR5-5200 x 2', flops: 2.3 * TERA, memory: 83 * GB },
  server: { name: '2 x 32 server cores (Xeon 6338 class), DDR4-3200 x 16', flops: 8 * TERA, memory: 409 * GB },
  bigServer: { name: '2 x 56 server cores (Xeon 8480 class), DDR5-4800 x 16', flops: 14 * TERA, memory: 614 * GB },
};

/** Dense 16-bit tensor peak with fp32 accumulation, memory bandwidth and size: the makers' datasheets. */
const GPUS = {
  a10: { name: 'NVIDIA A10', kind: 'datacentre', flops: 125, memory: 600, gib: 24, pci: '4x16' },
  l4: { name: 'NVIDIA L4', kind: 'datacentre', flops: 121, memory: 300, gib: 24, pci: '4x16' },
  'a100-40gb': { name: 'NVIDIA A100 PCIe 40 GB', kind: 'datacentre', flops: 312, memory: 1555, gib: 40, pci: '4x16' },
  'a100-80gb': { name: 'NVIDIA A100 SXM 80 GB', kind: 'datacentre', flops: 312, memory: 2039, gib: 80, pci: '4x16' },
  h100: { name: 'NVIDIA H100 SXM 80 GB', kind: 'datacentre', flops: 989, memory: 3350, gib: 80, pci: '5x16' },
  'rtx-3060': { name: 'GeForce RTX 3060 12 GB', kind: 'desktop', flops: 25.5, memory: 360, gib: 12, pci: '4x16' },
  'rtx-3090': { name: 'GeForce RTX 3090', kind: 'desktop', flops: 71, memory: 936, gib: 24, pci: '4x16' },
  'rtx-4090': { name: 'GeForce RTX 4090', kind: 'desktop', flops: 165, memory: 1008, gib: 24, pci: '4x16' },
  'rtx-5090': { name: 'GeForce RTX 5090', kind: 'desktop', flops: 209, memory: 1792, gib: 32, pci: '5x16' },
  'rtx-3080-laptop': {
    name: 'GeForce RTX 3080 Laptop 16 GB',
    kind: 'laptop',
    flops: 34,
    memory: 448,
    gib: 16,
    pci: '4x8',
  },
  'rtx-4060-laptop': {
    name: 'GeForce RTX 4060 Laptop 8 GB',
    kind: 'laptop',
    flops: 29,
    memory: 256,
    gib: 8,
    pci: '4x8',
  },
};

const MACHINES = [
  { profile: 'a10', gpu: 'a10', cpu: 'server', ramGib: 256, disk: 'nvmeGen4', diskBytes: 1e12 },
  { profile: 'l4', gpu: 'l4', cpu: 'server', ramGib: 128, disk: 'nvmeGen3', diskBytes: 1e12 },
  { profile: 'a100-40gb', gpu: 'a100-40gb', cpu: 'server', ramGib: 512, disk: 'nvmeGen4', diskBytes: 2e12 },
  { profile: 'a100-80gb', gpu: 'a100-80gb', cpu: 'server', ramGib: 1024, disk: 'nvmeRaid', diskBytes: 4e12 },
  { profile: 'h100', gpu: 'h100', cpu: 'bigServer', ramGib: 1024, disk: 'nvmeRaid', diskBytes: 8e12 },
  { profile: 'rtx-3060', gpu: 'rtx-3060', cpu: 'desktop', ramGib: 32, disk: 'nvmeGen3', diskBytes: 1e12 },
  { profile: 'rtx-3090', gpu: 'rtx-3090', cpu: 'desktop', ramGib: 128, disk: 'nvmeGen4', diskBytes: 1e12 },
  { profile: 'rtx-4090', gpu: 'rtx-4090', cpu: 'desktop', ramGib: 64, disk: 'nvmeGen4', diskBytes: 2e12 },
  { profile: 'rtx-5090', gpu: 'rtx-5090', cpu: 'desktop', ramGib: 96, disk: 'nvmeGen5', diskBytes: 2e12 },
  { profile: 'rtx-3080-laptop', gpu: 'rtx-3080-laptop', cpu: 'laptop', ramGib: 32, disk: 'nvmeGen3', diskBytes: 1e12 },
  { profile: 'rtx-4060-laptop', gpu: 'rtx-4060-laptop', cpu: 'laptop', ramGib: 16, disk: 'nvmeGen4', diskBytes: 5e11 },
  { profile: 'cpu-desktop', cpu: 'desktop', ramGib: 64, disk: 'nvmeGen4', diskBytes: 1e12 },
  { profile: 'cpu-server', cpu: 'bigServer', ramGib: 512, disk: 'nvmeRaid', diskBytes: 4e12 },
  { profile: 'cpu-laptop', cpu: 'laptop', ramGib: 16, disk: 'nvmeGen3', diskBytes: 5e11 },
];

const datasheet = (value, note) => ({ value: Number(value.toPrecision(4)), source: 'datasheet', note });
const percent = (share) => `${Math.round(100 * share)} %`;

/**
 * A launch reads every weight once, for 2 FLOPs per token. Below the knee that read is the time, above it the
 * arithmetic is; between points time is linear in tokens, so the two ends and the knee say it all.
 */
function matmulPoints(flopsPerSecond, memoryBytesPerSecond, bytesPerWeight, peakNote) {
  const flopsPerToken = (2 / bytesPerWeight) * memoryBytesPerSecond;
  const knee = Math.max(2, Math.round(flopsPerSecond / flopsPerToken));
  const bound = `bound by reading the ${bytesPerWeight === 2 ? 16 : 4}-bit weights once`;
  return [
    { tokens: 1, flopsPerSecond: datasheet(flopsPerToken, bound) },
    { tokens: knee, flopsPerSecond: datasheet(Math.min(flopsPerSecond, knee * flopsPerToken), `knee: ${bound}`) },
    { tokens: 16 * knee, flopsPerSecond: datasheet(flopsPerSecond, peakNote) },
  ];
}

function computeRates({ peakFlops, matmulShare, peakMemory, memoryShare, launchSeconds }) {
  const peakNote = `${percent(matmulShare)} of ${peakFlops / TERA} TFLOP/s`;
  const flops = peakFlops * matmulShare;
  const memory = peakMemory * memoryShare;
  return {
    matmul: matmulPoints(flops, memory, 2, peakNote),
    memoryBytesPerSecond: datasheet(memory, `${percent(memoryShare)} of ${peakMemory / GB} GB/s`),
    attentionPrefillFlopsPerSecond: datasheet(
      flops * ATTAINED.prefillAttention,
      `${percent(ATTAINED.prefillAttention)} of the attained matmul rate (${peakNote})`,
    ),
    attentionDecodeBytesPerSecond: datasheet(
      memory * ATTAINED.decodeAttention,
      `${percent(ATTAINED.decodeAttention)} of the attained memory bandwidth`,
    ),
    attentionDecode4BitBytesPerSecond: datasheet(
      memory * ATTAINED.decodeAttention4Bit,
      `${percent(ATTAINED.decodeAttention4Bit)} of the attained memory bandwidth: unpacking costs`,
    ),
    launchSeconds,
  };
}

function cpuRates(cpu) {
  const rates = computeRates({
    peakFlops: cpu.flops,
    matmulShare: ATTAINED.matmul.cpu,
    peakMemory: cpu.memory,
    memoryShare: ATTAINED.memory.cpu,
    launchSeconds: datasheet(10e-6, 'waking a thread pool: typical'),
  });
  const { matmul, memory } = ATTAINED.cpu4Bit;
  const peak = cpu.flops * ATTAINED.matmul.cpu * matmul;
  const reading = cpu.memory * ATTAINED.memory.cpu * memory;
  const note = `${percent(matmul)} of the 16-bit rate: unpacking costs`;
  return { ...rates, matmul4Bit: matmulPoints(peak, reading, BYTES_PER_4BIT_WEIGHT, note) };
}

function gpuRates(gpu) {
  return computeRates({
    peakFlops: gpu.flops * TERA,
    matmulShare: ATTAINED.matmul[gpu.kind],
    peakMemory: gpu.memory * GB,
    memoryShare: ATTAINED.memory.gpu,
    launchSeconds: datasheet(5e-6, 'kernel launch: typical'),
  });
}

function linkRate(bytesPerSecond, latencySeconds, note) {
  return {
    bytesPerSecond: datasheet(bytesPerSecond, note),
    latencySeconds: datasheet(latencySeconds, 'typical'),
  };
}

function profileOf(machine) {
  const cpu = CPUS[machine.cpu];
  const disk = DISKS[machine.disk];
  const gpu = machine.gpu && GPUS[machine.gpu];
  const pci = gpu && linkRate(PCI_EXPRESS[gpu.pci], PCI_LATENCY_SECONDS, `PCI Express ${gpu.pci}, pinned memory`);
  const usableRam = Math.floor(machine.ramGib * GIB * (1 - CPU_RESERVED_SHARE));
  return {
    schemaVersion: 1,
    name: machine.profile,
    description: `${gpu ? `${gpu.name}; ` : ''}${cpu.name}; ${machine.ramGib} GiB RAM; ${machine.disk} disk. From datasheets, not measured.`,
    device: gpu ? 'cuda' : 'cpu',
    memory: {
      ...(gpu && {
        gpuBytes: {
          value: gpu.gib * GIB - GPU_RESERVE_BYTES,
          source: 'datasheet',
          note: `${gpu.gib} GiB less 0.5 GiB for driver and context`,
        },
      }),
      cpuBytes: {
        value: usableRam,
        source: 'datasheet',
        note: `${machine.ramGib} GiB less ${percent(CPU_RESERVED_SHARE)} for the system`,
      },
      diskBytes: { value: machine.diskBytes, source: 'datasheet', note: 'size of the disk: assumed' },
    },
    links: {
      ...(pci && { cpuToGpu: pci, gpuToCpu: pci }),
      diskToCpu: linkRate(disk.read, disk.latency, 'sequential reads, attained'),
      cpuToDisk: linkRate(disk.write, disk.latency, 'sustained writes, past the fast cache'),
    },
    compute: { ...(gpu && { gpu: gpuRates(gpu) }), cpu: cpuRates(cpu) },
    taskSeconds: datasheet(20e-6, 'hand-over between threads: typical'),
  };
}

const folder = fileURLToPath(new URL('../hardware-profiles/', import.meta.url));
const style = { ...(await resolveConfig(folder)), parser: 'json' };
for (const machine of MACHINES) {
  const text = await format(JSON.stringify(profileOf(machine)), style);
  await writeFile(`${folder}${machine.profile}.json`, text);
}
console.log(`wrote ${MACHINES.length} profiles to hardware-profiles/`);
