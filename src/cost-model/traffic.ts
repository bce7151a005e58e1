/**
 * What each task moves over which link, in how many transfers: docs/schedule.md, "One step". Totals over all runs of a
 * step load.
 */
import { hiddenBytes, kvRowBytes, type LayerKind } from '../models/tensors.js';
import type { Link, Tier } from '../tiers.js';
import type { Amount } from '../workload/sequences.js';
import {
  AWAY_TIERS,
  isDisk,
  linksFromDevice,
  linksToDevice,
  type AwayTier,
  type Movement,
  type Setting,
} from './movement.js';
import { embeddingRowMovements } from './embedding-rows.js';
import { liveSteps, loadedRows, newRows, newTokens, type StepLoad } from './loads.js';
import type { KvHome } from './shares.js';

const Q_BYTES_PER_ELEMENT = 4;

/**
 * One load of a layer's streamed matrices: rows on cpu cross once, in one copy; rows on disk twice, read matrix by
 * matrix.
 */
export function weightMovements({ shares, hasGpu }: Setting, kind: LayerKind): Movement[] {
  return AWAY_TIERS.flatMap((home) => {
    const { amount: bytes, share } = shares.weights.bytes(kind, home, 'streamed');
    const matrices = shares.weights.tensors(kind, home, 'streamed').amount;
    const any = shares.weights.anyTensor(kind, home, 'streamed').amount;
    return linksToDevice(home, hasGpu).map((link): Movement => ({
      task: 'loadWeights',
      link,
      home,
      share,
      bytes,
      transfers: isDisk(link) ? matrices : any,
    }));
  });
}

/** What the GPU batches of one decoder layer move, but for the KV cache that they load. */
export function decoderMovements(setting: Setting, load: StepLoad): Movement[] {
  const isDecode = load.range.from > 0;
  return [
    ...(isDecode ? kvStores(setting, load, MOVED_HOMES) : kvStores(setting, load, AWAY_HOMES)),
    ...(isDecode && setting.hasGpu ? cpuAttentionCopies(setting, load) : []),
    ...activationMovements(setting, load, 'loadActivations', newTokens(load)),
    ...activationMovements(setting, load, 'storeActivations', newTokens(load)),
  ];
}

/** `embed` fetches the rows of its tables that are away from the device, and puts out hidden states. */
export function embedMovements(setting: Setting, load: StepLoad): Movement[] {
  return [
    ...embeddingRowMovements(setting, load),
    ...activationMovements(setting, load, 'storeActivations', newTokens(load)),
  ];
}

/** `head` takes in those of the last tokens. */
export function headMovements(setting: Setting, load: StepLoad): Movement[] {
  return activationMovements(setting, load, 'loadActivations', liveSteps(load.range));
}

type HomesOfTier = Readonly<Record<AwayTier, readonly KvHome[]>>;
const AWAY_HOMES: HomesOfTier = { cpu: ['cpuMoved', 'cpuAttended'], disk: ['diskMoved', 'diskAttended'] };
const MOVED_HOMES: HomesOfTier = { cpu: ['cpuMoved'], disk: ['diskMoved'] };
const TIER_HOMES: Readonly<Record<AwayTier, readonly Tier[]>> = { cpu: ['cpu'], disk: ['disk'] };
const ATTENDED_HOMES: HomesOfTier = { cpu: ['cpuAttended'], disk: ['diskAttended'] };

/**
 * Past KV rows of one decoder layer that will be attended: to the device, or, where the CPU attends to rows on disk, to
 * RAM.
 */
export function kvLoadMovements(setting: Setting, load: StepLoad): Movement[] {
  if (load.range.from === 0) return [];
  const rows = loadedRows(load.range, setting.model.slidingWindow ?? Infinity);
  const loads = (link: Link, home: AwayTier, homes: readonly KvHome[]) =>
    kvMovement(setting, load, 'loadKvCache', link, home, homes, rows);
  return [
    ...AWAY_TIERS.flatMap((home) =>
      linksToDevice(home, setting.hasGpu).map((link) => loads(link, home, MOVED_HOMES[home])),
    ),
    loads('diskToCpu', 'disk', ATTENDED_HOMES.disk),
  ];
}

/** New rows go home; those that the CPU attends to have come to RAM with q, and go on to disk. */
function kvStores(setting: Setting, load: StepLoad, homesOf: HomesOfTier): Movement[] {
  const rows = newRows(load.range);
  const store = (link: Link, home: AwayTier, homes: readonly KvHome[]) =>
    kvMovement(setting, load, 'storeKvCache', link, home, homes, rows);
  return [
    ...(setting.hasGpu ? AWAY_TIERS.map((home) => store('gpuToCpu', home, homesOf[home])) : []),
    store('cpuToDisk', 'disk', AWAY_HOMES.disk),
  ];
}

/** One copy for a GPU batch over a link of the device; on disk one request for each sequence. */
function kvMovement(
  { model, shape, shares }: Setting,
  { set, range }: StepLoad,
  task: 'loadKvCache' | 'storeKvCache',
  link: Link,
  home: AwayTier,
  homes: readonly KvHome[],
  rows: Amount,
): Movement {
  const { amount, share } = shares.kvCache.total(set, homes, rows);
  const requests = isDisk(link)
    ? shares.kvCache.total(set, homes, liveSteps(range))
    : shares.kvCache.liveBatches(set, homes, range);
  const bytes = amount * kvRowBytes(model, shape.kvCacheBits);
  return { task, link, home, share, bytes, transfers: requests.amount };
}

/** q and the new KV row of the batch's attended sequences go to the CPU in one copy, the output comes back in one. */
function cpuAttentionCopies({ model, shape, shares }: Setting, { set, range }: StepLoad): Movement[] {
  const live = liveSteps(range);
  const qBytes = model.numHeads * model.headDim * Q_BYTES_PER_ELEMENT;
  return AWAY_TIERS.flatMap((home) => {
    const { amount: tokens, share } = shares.kvCache.total(set, ATTENDED_HOMES[home], live);
    const transfers = shares.kvCache.liveBatches(set, ATTENDED_HOMES[home], range).amount;
    const copy = (link: Link, tokenBytes: number): Movement => ({
      task: 'compute',
      link,
      home,
      share,
      bytes: tokens * tokenBytes,
      transfers,
    });
    return [copy('gpuToCpu', qBytes + kvRowBytes(model, shape.kvCacheBits)), copy('cpuToGpu', qBytes)];
  });
}

/** One transfer for each GPU batch and tier. */
function activationMovements(
  { model, shares, hasGpu }: Setting,
  { set, range }: StepLoad,
  task: 'loadActivations' | 'storeActivations',
  tokens: Amount,
): Movement[] {
  const links = task === 'loadActivations' ? linksToDevice : linksFromDevice;
  return AWAY_TIERS.flatMap((home) => {
    const { amount, share } = shares.activations.total(set, TIER_HOMES[home], tokens);
    const bytes = amount * hiddenBytes(model);
    const transfers = shares.activations.liveBatches(set, TIER_HOMES[home], range).amount;
    return links(home, hasGpu).map((link) => ({ task, link, home, share, bytes, transfers }));
  });
}
