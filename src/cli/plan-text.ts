/** A plan as a person reads it. */
import type { ExplanationSection } from '../solver/explain.js';
import type { ParetoPoint } from '../solver/pareto.js';
import type { Alternative, Plan, Resource, Sensitivity } from '../solver/plan.js';
import { formatSeconds } from '../units.js';
import {
  machineName,
  memoryTable,
  phaseTable,
  placementTable,
  policyTable,
  throughputLine,
  tiersOf,
} from './estimate-text.js';
import { bitsShort, decimal, heading, paragraphs, signedPercent, STAGE_WORDS, table, TIER_WORDS } from './format.js';

const MOST_SENSITIVITIES = 3;
/** Gains below this share are noise. */
const WORTH_SAYING = 0.001;

function resourceWords(resource: Resource): string {
  switch (resource) {
    case 'gpuCapacity':
      return `${TIER_WORDS.gpu} memory`;
    case 'cpuCapacity':
      return TIER_WORDS.cpu;
    case 'diskCapacity':
      return `${TIER_WORDS.disk} space`;
    default:
      return `rate ${STAGE_WORDS[resource]}`;
  }
}

function sensitivityTable(all: readonly Sensitivity[], base: number): string {
  const sensitivities = all
    .filter(({ genTokensPerSecondDelta }) => genTokensPerSecondDelta > WORTH_SAYING * base)
    .slice(0, MOST_SENSITIVITIES);
  if (sensitivities.length === 0)
    return 'More memory or a faster link would bring nothing: the plan is bound by computing.';
  return table(
    ['what more would bring', '', 'tokens/s', ''],
    sensitivities.map(({ resource, add, genTokensPerSecondDelta }) => [
      `${resourceWords(resource)}`,
      add.endsWith('x') ? `x ${add.slice(0, -1)}` : `+ ${add}`,
      `${genTokensPerSecondDelta >= 0 ? '+' : '-'}${decimal(Math.abs(genTokensPerSecondDelta))}`,
      signedPercent(genTokensPerSecondDelta / base),
    ]),
  );
}

function alternativeTable(alternatives: readonly Alternative[], base: number): string {
  if (alternatives.length === 0) return '';
  return table(
    ['the same job otherwise', 'batch', 'weights/KV', 'tokens/s', 'of this plan', ''],
    alternatives.map(({ name, policy, genTokensPerSecond, fits }) => [
      name,
      `${policy.gpuBatchSize} x ${policy.numGpuBatches}`,
      bitsShort(policy),
      decimal(genTokensPerSecond),
      `${decimal(genTokensPerSecond / base)} x`,
      fits ? '' : 'does not fit',
    ]),
  );
}

export function explanationText(sections: readonly ExplanationSection[]): string {
  return paragraphs(
    ...sections.map(({ heading: title, sentences }) =>
      [heading(title), ...sentences.map((sentence) => `  ${sentence}`)].join('\n'),
    ),
  );
}

/** One block's latency against throughput, slowest first. */
export function paretoTable(points: readonly ParetoPoint[]): string {
  return table(
    ['seconds of a block', 'batch', 'weights/KV', 'tokens/s'],
    points.map(({ latencySeconds, genTokensPerSecond, policy }) => [
      formatSeconds(latencySeconds),
      `${policy.gpuBatchSize} x ${policy.numGpuBatches}`,
      bitsShort(policy),
      decimal(genTokensPerSecond),
    ]),
  );
}

function weightIoLine({ weightIo: { weightLoads, ratio } }: Plan): string {
  return `Weights: ${Math.round(weightLoads)} layer loads in all, ${decimal(ratio)} times the proven least of any schedule that fills all tiers.`;
}

function jobLine({ workload, job }: Plan): string {
  const [least, most] = job.hoursRange.map((hours) => formatSeconds(hours * 3600));
  const band = least === most ? '' : ` (${least} to ${most} within the spread of the profile)`;
  const shared = workload.sharedPromptTokens ? ` (the first ${workload.sharedPromptTokens} alike in all)` : '';
  return `${job.numSequences} prompts of up to ${workload.promptTokens} tokens${shared}, up to ${workload.genTokens} generated for each, in ${job.numBlocks} block${job.numBlocks === 1 ? '' : 's'}: ${formatSeconds(job.hours * 3600)}${band}`;
}

export function planText(plan: Plan): string {
  const { model, hardware, policy, realised, estimate, search } = plan;
  const tiers = tiersOf(hardware.capacityBytes);
  const base = estimate.genTokensPerSecond;
  return paragraphs(
    heading(`${model.name} on ${machineName(hardware)}: ${throughputLine(estimate)}`),
    jobLine(plan),
    policyTable(policy),
    placementTable(realised.placement, tiers, realised.bytes),
    phaseTable(estimate),
    memoryTable(estimate, hardware.capacityBytes, tiers),
    weightIoLine(plan),
    sensitivityTable(plan.sensitivity, base),
    alternativeTable(plan.alternatives, base),
    `${search.programsSolved} linear programs over ${search.candidates} batch shapes in ${formatSeconds(search.seconds)}; status ${search.status}`,
  );
}
