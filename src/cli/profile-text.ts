/** A hardware profile as a person reads it. */
import type { ComputeRates, HardwareProfile, LinkRate, MatmulPoint, Quantity } from '../hardware/hardware-profile.js';
import { formatBytes, formatFlopRate, formatRate, formatSeconds, GIGA } from '../units.js';
import { decimal, heading, paragraphs, percent, table } from './format.js';

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

function computeRows(rates: ComputeRates): Row[] {
  return [
    ...row('memory read', rates.memoryBytesPerSecond, formatRate),
    ...row('prefill attention', rates.attentionPrefillFlopsPerSecond, formatFlopRate),
    ...row('decode attention', rates.attentionDecodeBytesPerSecond, formatRate),
    ...row('decode attention, 4-bit', rates.attentionDecode4BitBytesPerSecond, formatRate),
    ...row('launch', rates.launchSeconds, formatSeconds),
    ...row('  after a wait', rates.wakeSeconds, (seconds) => `+ ${formatSeconds(seconds)}`),
  ];
}

/** One column for each number of tokens, one row for each width of the weights. */
function matmulTable({ matmul, matmul4Bit = [] }: ComputeRates): string {
  const columns = [...new Set([...matmul, ...matmul4Bit].map(({ tokens }) => tokens))].sort((a, b) => a - b);
  const cells = (points: readonly MatmulPoint[]) =>
    columns.map((tokens) => {
      const point = points.find((candidate) => candidate.tokens === tokens);
      return point ? decimal(point.flopsPerSecond.value / GIGA) : '-';
    });
  return table(
    ['matmul, tokens', ...columns.map(String)],
    [['GFLOP/s', ...cells(matmul)], ...(matmul4Bit.length > 0 ? [['4-bit weights', ...cells(matmul4Bit)]] : [])],
  );
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
    matmulTable(compute.gpu ?? compute.cpu),
    `Written to ${path}. Next: flexplan optimize --hw ${path} --model MODEL --prompt-tokens 512 --gen-tokens 32`,
  );
}
