/** An estimate, and the policy that it is of, as a person reads them. */
import type { Estimate } from '../cost-model/estimate-types.js';
import type { Policy, Placement, TensorClass } from '../policy/policy.js';
import { LINKS, TIERS, type Device, type Phase, type Tier } from '../tiers.js';
import { formatBytes, formatSeconds } from '../units.js';
import { attentionWords, batchWords, bitsWords, decimal, percent, STAGE_WORDS, table, TIER_WORDS } from './format.js';

const PHASES: readonly Phase[] = ['prefill', 'decode'];
const CLASS_WORDS: Readonly<Record<TensorClass, string>> = {
  weights: 'weights',
  kvCache: 'KV cache',
  activations: 'activations',
};

export function policyTable(policy: Policy): string {
  return table(
    ['', ''],
    [
      ['batch', batchWords(policy)],
      ['weights', bitsWords(policy.weightBits)],
      ['KV cache', bitsWords(policy.kvCacheBits)],
      ['decode attention', attentionWords(policy)],
      ['transfers', policy.overlap ? 'overlap with computing' : 'one after the other'],
    ],
    ['left', 'left'],
  );
}

/** Rows: tensor classes; columns: tiers. Bytes where they are known, else only shares. */
export function placementTable(
  placement: Placement,
  tiers: readonly Tier[],
  bytes?: Readonly<Record<TensorClass, Readonly<Record<Tier, number>>>>,
): string {
  const cell = (name: TensorClass, tier: Tier): string => {
    const share = placement[name][tier];
    if (share === 0) return '-';
    return bytes ? `${percent(share)} (${formatBytes(bytes[name][tier])})` : percent(share);
  };
  return table(
    ['placement', ...tiers.map((tier) => TIER_WORDS[tier])],
    (Object.keys(CLASS_WORDS) as TensorClass[]).map((name) => [
      CLASS_WORDS[name],
      ...tiers.map((tier) => cell(name, tier)),
    ]),
  );
}

export function phaseTable(estimate: Estimate): string {
  return table(
    ['predicted', 'seconds', 'bottleneck', 'compute', 'CPU attention', ...LINKS.map((link) => STAGE_WORDS[link])],
    PHASES.map((phase) => {
      const { compute, cpuAttention, ...links } = estimate.stageSeconds[phase];
      const busy = [compute, cpuAttention, ...LINKS.map((link) => links[link])];
      return [
        phase,
        formatSeconds(phase === 'prefill' ? estimate.prefillSeconds : estimate.decodeSeconds),
        STAGE_WORDS[estimate.bottleneck[phase]],
        ...busy.map((seconds) => (seconds === 0 ? '-' : formatSeconds(seconds))),
      ];
    }),
  );
}

export function memoryTable(
  estimate: Estimate,
  capacity: Readonly<Record<Tier, number>>,
  tiers: readonly Tier[],
): string {
  return table(
    ['peak memory', 'needed', 'cap', ''],
    tiers.map((tier) => [
      TIER_WORDS[tier],
      formatBytes(estimate.peakBytes[tier]),
      formatBytes(capacity[tier]),
      estimate.fits[tier] ? percent(estimate.peakBytes[tier] / Math.max(capacity[tier], 1)) : 'does not fit',
    ]),
  );
}

export function throughputLine(estimate: Estimate): string {
  return `${decimal(estimate.genTokensPerSecond)} generated tokens/s: ${formatSeconds(estimate.totalSeconds)} in all`;
}

/** Every output says when the GPU is an emulated one. */
export function machineName({ name, device }: { readonly name: string; readonly device: Device }): string {
  return device === 'emulated' ? `${name} (emulated GPU)` : name;
}

/** The tiers that this machine has. */
export function tiersOf(capacity: Readonly<Record<Tier, number>>): Tier[] {
  return TIERS.filter((tier) => tier !== 'gpu' || capacity.gpu > 0);
}
