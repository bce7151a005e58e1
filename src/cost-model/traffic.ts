/** What each task moves over which link, in how many transfers: docs/schedule.md, "One step". Totals over all runs of a step load. */
import type { ModelConfig } from '../models/model-config.js';
import { hiddenBytes, kvRowBytes, type LayerKind } from '../models/tensors.js';
import type { Link, Tier } from '../tiers.js';
import { scale, type Affine } from './affine.js';
import type { BatchShape } from './cost-terms.js';
import { liveSteps, newTokens, pastRows, type Amount, type StepLoad } from './loads.js';
import { isStreamed, type KvHome, type Shares } from './shares.js';

export type Task = 'loadWeights' | 'loadKvCache' | 'loadActivations' | 'compute' | 'storeKvCache' | 'storeActivations';

/** Useful bytes (no page padding) and transfers that one task sends over one link. */
export interface Movement {
  readonly task: Task;
  readonly link: Link;
  readonly bytes: Affine;
  readonly transfers: Affine;
}

/** What the formulas of traffic, compute and memory all need. */
export interface Setting {
  readonly model: ModelConfig;
  readonly shape: BatchShape;
  readonly shares: Shares;
  readonly hasGpu: boolean;
}

const Q_BYTES_PER_ELEMENT = 4;

/** One load of one layer's streamed matrices: rows on cpu cross once, rows on disk twice. */
export function weightMovements({ shares, hasGpu }: Setting, kind: LayerKind): Movement[] {
  return (['cpu', 'disk'] as const).flatMap((tier) =>
    linksToDevice(tier, hasGpu).map((link) => ({
      task: 'loadWeights' as const,
      link,
      bytes: shares.weights.bytes(kind, tier, isStreamed),
      transfers: shares.weights.tensors(kind, tier, isStreamed),
    })),
  );
}

/** KV cache, activations and the copies of CPU attention of one decoder layer. */
export function decoderMovements(setting: Setting, load: StepLoad): Movement[] {
  return [
    ...(load.range.from === 0 ? [] : [...kvLoads(setting, load), ...cpuAttentionCopies(setting, load)]),
    ...kvStores(setting, load),
    ...activationMovements(setting, load, 'loadActivations', newTokens(load.range)),
    ...activationMovements(setting, load, 'storeActivations', newTokens(load.range)),
  ];
}

/** Hidden states that leave `embed` and, last tokens only, enter `head`. */
export function endsMovements(setting: Setting, load: StepLoad): Movement[] {
  return [
    ...activationMovements(setting, load, 'storeActivations', newTokens(load.range)),
    ...activationMovements(setting, load, 'loadActivations', liveSteps(load.range)),
  ];
}

export function linksToDevice(tier: Tier, hasGpu: boolean): Link[] {
  return [
    ...(tier === 'disk' ? (['diskToCpu'] as const) : []),
    ...(hasGpu && tier !== 'gpu' ? (['cpuToGpu'] as const) : []),
  ];
}

export function linksFromDevice(tier: Tier, hasGpu: boolean): Link[] {
  return [
    ...(hasGpu && tier !== 'gpu' ? (['gpuToCpu'] as const) : []),
    ...(tier === 'disk' ? (['cpuToDisk'] as const) : []),
  ];
}

function kvLoads(setting: Setting, load: StepLoad): Movement[] {
  const { hasGpu } = setting;
  const move = (home: KvHome, links: readonly Link[]) =>
    links.map((link) => kvMovement(setting, load, 'loadKvCache', link, home, pastRows(load.range)));
  return [
    ...move('cpuMoved', linksToDevice('cpu', hasGpu)),
    ...move('diskMoved', linksToDevice('disk', hasGpu)),
    ...move('diskAttended', ['diskToCpu']),
  ];
}

function kvStores(setting: Setting, load: StepLoad): Movement[] {
  const store = (homes: readonly KvHome[], tier: Tier) =>
    homes.flatMap((home) =>
      linksFromDevice(tier, setting.hasGpu).map((link) =>
        kvMovement(setting, load, 'storeKvCache', link, home, newTokens(load.range)),
      ),
    );
  return [...store(['cpuMoved', 'cpuAttended'], 'cpu'), ...store(['diskMoved', 'diskAttended'], 'disk')];
}

/** One transfer for each sequence and step: its rows lie together. */
function kvMovement(
  { model, shape, shares }: Setting,
  { set, range }: StepLoad,
  task: Task,
  link: Link,
  home: KvHome,
  rows: Amount,
): Movement {
  return {
    task,
    link,
    bytes: scale(kvRowBytes(model, shape.kvCacheBits), shares.kvCache.total(set, [home], rows)),
    transfers: shares.kvCache.total(set, [home], liveSteps(range)),
  };
}

/** `q` of the batch's attended sequences goes to the CPU in one copy, the output comes back in one. */
function cpuAttentionCopies({ model, shares, hasGpu }: Setting, { set, range }: StepLoad): Movement[] {
  if (!hasGpu) return [];
  const attended: readonly KvHome[] = ['cpuAttended', 'diskAttended'];
  const tokenBytes = model.numHeads * model.headDim * Q_BYTES_PER_ELEMENT;
  const bytes = scale(tokenBytes, shares.kvCache.total(set, attended, liveSteps(range)));
  const transfers = shares.kvCache.batches(set, attended, liveSteps(range));
  return (['gpuToCpu', 'cpuToGpu'] as const).map((link) => ({ task: 'compute', link, bytes, transfers }));
}

/** One transfer for each GPU batch and tier. */
function activationMovements(
  { model, shares, hasGpu }: Setting,
  { set, range }: StepLoad,
  task: 'loadActivations' | 'storeActivations',
  tokens: Amount,
): Movement[] {
  const links = task === 'loadActivations' ? linksToDevice : linksFromDevice;
  return (['cpu', 'disk'] as const).flatMap((tier) =>
    links(tier, hasGpu).map((link) => ({
      task,
      link,
      bytes: scale(hiddenBytes(model), shares.activations.total(set, [tier], tokens)),
      transfers: shares.activations.batches(set, [tier], liveSteps(range)),
    })),
  );
}
