/** A run and its policy in words, for the head of a report. */
import type { Policy, TensorClass } from '../policy/policy.js';
import { TIERS } from '../tiers.js';
import { formatBytes } from '../units.js';
import { tierLabel } from './comparison.js';
import type { RunDocument } from './run-document.js';

const CLASS_LABELS: Readonly<Record<TensorClass, string>> = {
  weights: 'weights',
  kvCache: 'KV cache',
  activations: 'activations',
};

/** `2.6 MiB GPU, 5.1 MiB RAM`: the tiers that hold something. */
function placementWords(run: RunDocument, tensorClass: TensorClass): string {
  const bytes = run.placedBytes[tensorClass];
  const parts = TIERS.filter((tier) => bytes[tier] > 0).map(
    (tier) => `${formatBytes(bytes[tier])} ${tierLabel(tier, run.device)}`,
  );
  return parts.join(', ') || 'nothing';
}

function attentionWords(run: RunDocument): string {
  const { placement, cpuAttentionFraction, diskKvCpuAttentionFraction = 0 } = run.plan.policy;
  const onCpu = placement.kvCache.cpu * cpuAttentionFraction + placement.kvCache.disk * diskKvCpuAttentionFraction;
  if (run.device === 'cpu') return 'on the CPU, which is the device';
  return onCpu === 0 ? 'on the device' : `${Math.round(onCpu * 100)} % of the sequences on the CPU`;
}

/** Nothing where all of V is read. */
function sparseWords({ sparseValueFraction = 1 }: Policy): [string, string][] {
  if (sparseValueFraction === 1) return [];
  const percent = Number((100 * sparseValueFraction).toPrecision(3));
  return [['values read', `those of the ${percent} % highest scores; the prediction counts all`]];
}

/** What prompts share, and what the prediction knows of it; nothing where none begins like another. */
export function sharedPrefixWords(run: RunDocument): string | undefined {
  const { sharedPrefixTokens = 0, sharedPromptTokens = 0, promptTokens, plan } = run;
  if (sharedPrefixTokens === 0) return undefined;
  const known =
    sharedPromptTokens === 0 || plan.policy.schedule === 'diagonal'
      ? 'the prediction computes them all'
      : `the prediction knows of the first ${sharedPromptTokens}, alike in all prompts`;
  return `${sharedPrefixTokens} of ${promptTokens} prompt tokens taken from prompts that begin alike; ${known}`;
}

/** Term and text pairs: model, device, job, batch shape, placements. */
export function describeRun(run: RunDocument): [string, string][] {
  const { policy, model, hardware } = run.plan;
  const shared = sharedPrefixWords(run);
  const batch = `${policy.gpuBatchSize} × ${policy.numGpuBatches} sequences a block, ${run.numBlocks} block${run.numBlocks === 1 ? '' : 's'}`;
  return [
    ['model', model.name],
    [
      'device',
      run.device === 'emulated'
        ? `emulated GPU (profile ${hardware.name})`
        : `${run.device} (profile ${hardware.name})`,
    ],
    ['job', `${run.numSequences} prompts, ${run.promptTokens} prompt tokens, ${run.genTokens} generated tokens`],
    ...(shared === undefined ? [] : [['shared', shared] satisfies [string, string]]),
    ['batch', batch],
    ['stored as', `weights ${policy.weightBits}-bit, KV cache ${policy.kvCacheBits}-bit`],
    ['decode attention', attentionWords(run)],
    ...sparseWords(policy),
    ...(Object.keys(CLASS_LABELS) as TensorClass[]).map((name): [string, string] => [
      CLASS_LABELS[name],
      placementWords(run, name),
    ]),
  ];
}
