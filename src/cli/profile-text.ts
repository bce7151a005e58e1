/** A hardware profile as a person reads it. */
import type { ComputeRates, HardwareProfile, LinkRate, Quantity } from '../hardware/hardware-profile.js';
import { formatBytes, formatFlopRate, formatRate, formatSeconds } from '../units.js';
import { heading, paragraphs, percent, table } from './format.js';

type Row = readonly [string, string, string];

function row(label: string, quantity: Quantity | undefined, format: (value: number) => string): Row[] {
  if (!quantity) return [];
  const { value, source, spread } = quantity;
  return [[label, format(value), spread === undefined ? source : `± ${percent(spread)}`]];
}

function linkRows(label: string, link: LinkRate | undefined): Row[] {
  if (!link) return [];
  return [...row(label, link.bytesPerSecond, formatRate), ...row(`  latency`, link.latencySeconds, formatSeconds)];
}

function computeRows({ matmul, matmul4Bit, ...rates }: ComputeRates): Row[] {
  return [
    ...row('memory read', rates.memoryBytesPerSecond, formatRate),
    ...matmul.flatMap((point) => row(`matmul, ${point.tokens} tokens`, point.flopsPerSecond, formatFlopRate)),
    ...(matmul4Bit ?? []).flatMap((point) =>
      row(`matmul 4-bit, ${point.tokens} tokens`, point.flopsPerSecond, formatFlopRate),
    ),
    ...row('prefill attention', rates.attentionPrefillFlopsPerSecond, formatFlopRate),
    ...row('decode attention', rates.attentionDecodeBytesPerSecond, formatRate),
    ...row('decode attention, 4-bit', rates.attentionDecode4BitBytesPerSecond, formatRate),
    ...row('launch', rates.launchSeconds, formatSeconds),
  ];
}

export function profileText(profile: HardwareProfile, path: string): string {
  const { memory, links, compute } = profile;
  const device = profile.device === 'emulated' ? 'emulated GPU (its kernels run on the CPU)' : profile.device;
  return paragraphs(
    heading(`${profile.name}: ${device}`),
    table(
      ['', '', 'spread'],
      [
        ...row('GPU memory', memory.gpuBytes, formatBytes),
        ...row('RAM', memory.cpuBytes, formatBytes),
        ...row('disk', memory.diskBytes, formatBytes),
        ...linkRows('RAM to GPU', links.cpuToGpu),
        ...linkRows('GPU to RAM', links.gpuToCpu),
        ...linkRows('disk to RAM', links.diskToCpu),
        ...linkRows('RAM to disk', links.cpuToDisk),
        ...computeRows(compute.gpu ?? compute.cpu),
        ...row('task hand-over', profile.taskSeconds, formatSeconds),
      ],
    ),
    `Written to ${path}. Next: flexplan optimize --hw ${path} --model MODEL --prompt-tokens 512 --gen-tokens 32`,
  );
}
