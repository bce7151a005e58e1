/** A plan in words: why this policy, what binds in each phase, what would have to change. */
import type { StageSeconds } from '../cost-model/estimate-types.js';
import { TENSOR_CLASSES, type TensorClass, type TierFractions } from '../policy/policy.js';
import { TIERS, type Phase, type StageName, type Tier } from '../tiers.js';
import { formatBytes, formatSeconds } from '../units.js';
import type { Plan, Resource, Sensitivity } from './plan.js';

const CLASS_WORDS: Readonly<Record<TensorClass, string>> = {
  weights: 'The weights lie',
  kvCache: 'The KV cache lies',
  activations: 'The activations lie',
};
const TIER_WORDS: Readonly<Record<Tier, string>> = { gpu: 'in GPU memory', cpu: 'in RAM', disk: 'on disk' };
const CAPACITY_WORDS: Readonly<Record<Tier, string>> = { gpu: 'GPU memory', cpu: 'RAM', disk: 'Disk' };
const STAGE_WORDS: Readonly<Record<StageName, string>> = {
  compute: 'computing on the device',
  cpuAttention: 'attention on the CPU',
  cpuToGpu: 'copying from RAM to the GPU',
  gpuToCpu: 'copying from the GPU to RAM',
  diskToCpu: 'reading the disk',
  cpuToDisk: 'writing to the disk',
};
const RESOURCE_WORDS: Readonly<Record<Resource, string>> = {
  gpuCapacity: 'of GPU memory',
  cpuCapacity: 'of RAM',
  diskCapacity: 'of disk',
  cpuToGpu: 'the rate from RAM to the GPU',
  gpuToCpu: 'the rate from the GPU to RAM',
  diskToCpu: 'the rate of reading the disk',
  cpuToDisk: 'the rate of writing to the disk',
};

const percent = (fraction: number): string => `${Number((100 * fraction).toPrecision(3))} %`;
const rate = (tokensPerSecond: number): string => `${Number(tokensPerSecond.toPrecision(3))} tokens/s`;

/** Above this a tier counts as full, and a stage as busy all the time. */
const FULL_FRACTION = 0.98;
/** Below this a change is not worth a sentence. */
const WORTH_SAYING_FRACTION = 0.002;

function placementWords(tensorClass: TensorClass, fractions: TierFractions): string {
  const parts = TIERS.filter((tier) => fractions[tier] > 0);
  const words = parts.map((tier) =>
    parts.length === 1 ? `wholly ${TIER_WORDS[tier]}` : `${percent(fractions[tier])} ${TIER_WORDS[tier]}`,
  );
  return `${CLASS_WORDS[tensorClass]} ${words.join(', ')}.`;
}

function attentionWords({ policy, hardware, realised }: Plan): string[] {
  if (hardware.device === 'cpu') return [];
  const { cpu, disk } = realised.placement.kvCache;
  const attended = cpu * policy.cpuAttentionFraction + disk * (policy.diskKvCpuAttentionFraction ?? 0);
  if (cpu + disk === 0) return [];
  return attended > 0
    ? [
        `The CPU attends over ${percent(attended / (cpu + disk))} of the KV cache outside the GPU, so that part never crosses to it.`,
      ]
    : ['All KV cache outside the GPU is moved to it for attention: the links do it faster than the CPU would.'];
}

function batchWords({ policy, workload, job }: Plan): string {
  const { gpuBatchSize, numGpuBatches, overlap } = policy;
  const block = gpuBatchSize * numGpuBatches;
  const shared =
    numGpuBatches === 1
      ? `Blocks of ${block} sequences run as one GPU batch`
      : `Blocks of ${block} sequences run as ${numGpuBatches} GPU batches of ${gpuBatchSize}, which share each load of the weights`;
  const blocks = workload.numSequences === undefined ? '' : `; the job is ${job.numBlocks} of them`;
  return `${shared}${blocks}; copies ${overlap ? 'overlap with computing' : 'wait for computing'}.`;
}

function phaseWords(plan: Plan, phase: Phase): string {
  const { estimate } = plan;
  const seconds = phase === 'prefill' ? estimate.prefillSeconds : estimate.decodeSeconds;
  if (seconds === 0) return `${phase === 'prefill' ? 'Prefill' : 'Decode'} takes no time.`;
  const stages: StageSeconds = estimate.stageSeconds[phase];
  const busiest = (Object.keys(stages) as StageName[])
    .filter((stage) => stages[stage] > 0)
    .sort((a, b) => stages[b] - stages[a]);
  const [first, second] = busiest.map(
    (stage) => `${STAGE_WORDS[stage]} (${percent(Math.min(1, stages[stage] / seconds))} of the time)`,
  );
  const binding = STAGE_WORDS[estimate.bottleneck[phase]];
  const name = phase === 'prefill' ? 'Prefill' : 'Decode';
  const busy = [first, second].filter((words) => words !== undefined).join(', then ');
  return `${name} takes ${formatSeconds(seconds)} and is bound by ${binding}. Busiest: ${busy}.`;
}

function memoryWords({ estimate, hardware }: Plan): string[] {
  return TIERS.filter((tier) => hardware.capacityBytes[tier] > 0).map((tier) => {
    const used = estimate.peakBytes[tier];
    const capacity = hardware.capacityBytes[tier];
    const fullness = used / capacity;
    const verdict = fullness >= FULL_FRACTION ? 'full: it binds' : `${percent(fullness)} used`;
    return `${CAPACITY_WORDS[tier]}: ${formatBytes(used)} of ${formatBytes(capacity)}, ${verdict}.`;
  });
}

function changeWords({ resource, add, genTokensPerSecondDelta }: Sensitivity, base: number): string {
  const what = resource.endsWith('Capacity')
    ? `${add} more ${RESOURCE_WORDS[resource]}`
    : `${add.replace('x', ' times')} ${RESOURCE_WORDS[resource]}`;
  return `${what}: ${percent(genTokensPerSecondDelta / base)} more (+${rate(genTokensPerSecondDelta)}).`;
}

function changesWords({ sensitivity, estimate }: Plan): string[] {
  const base = estimate.genTokensPerSecond;
  const worth = sensitivity.filter((s) => s.genTokensPerSecondDelta > WORTH_SAYING_FRACTION * base);
  return worth.length === 0
    ? ['No single resource would bring more: computing binds everywhere.']
    : worth.map((s) => changeWords(s, base));
}

function comparisonWords({ alternatives, estimate }: Plan): string[] {
  return alternatives
    .filter(({ name }) => name !== 'runner-up')
    .map(({ name, genTokensPerSecond }) => {
      const times = Number((estimate.genTokensPerSecond / genTokensPerSecond).toPrecision(3));
      return `${name}'s policy makes ${rate(genTokensPerSecond)} on this machine: this plan makes ${times} times as much.`;
    });
}

function proofWords({ search, certificate }: Plan): string {
  const unproven = search.failed > 0 ? `, ${search.failed} unsolved` : '';
  return `Of ${search.candidates} batch shapes ${search.infeasible} do not fit and ${search.prunedByBound} are proven slower by a bound${unproven}; the placement is optimal for its shape (duality gap ${certificate.dualityGap.toExponential(0)}), and whole rows and sequences cost ${percent(Math.max(0, search.roundingLossFraction))} of it.`;
}

export interface ExplanationSection {
  readonly heading: string;
  readonly sentences: readonly string[];
}

/** In reading order. */
export function explain(plan: Plan): ExplanationSection[] {
  const { placement } = plan.realised;
  return [
    {
      heading: 'What it does',
      sentences: [
        batchWords(plan),
        ...TENSOR_CLASSES.map((tensorClass) => placementWords(tensorClass, placement[tensorClass])),
        ...attentionWords(plan),
      ],
    },
    {
      heading: 'What binds',
      sentences: [phaseWords(plan, 'prefill'), phaseWords(plan, 'decode'), ...memoryWords(plan)],
    },
    { heading: 'What would bring more', sentences: changesWords(plan) },
    { heading: 'Why believe it', sentences: [...comparisonWords(plan), proofWords(plan)] },
  ];
}
