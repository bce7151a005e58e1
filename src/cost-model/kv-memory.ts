/**
 * Bytes of the KV cache, at home and on its way: docs/schedule.md, "Buffers". The diagonal schedule takes whole pages
 * of what zig-zag takes.
 */
import { kvRowBytes } from '../models/tensors.js';
import type { ModelConfig } from '../models/model-config.js';
import { isDiagonal } from '../policy/policy.js';
import { kvPageRows, kvPagesOf } from '../policy/room.js';
import { rememberedFor } from '../remembered.js';
import type { Tier } from '../tiers.js';
import { reservedTokens } from '../workload/blocks.js';
import { oneSequence, promptTokensOf, type Amount } from '../workload/sequences.js';
import { largest, scale, sum, type Affine } from './affine.js';
import { inPages, PAGE_BYTES } from './alignment.js';
import type { BlockSet } from './block-sets.js';
import type { Setting } from './movement.js';
import { portionTerm, type KvHome } from './shares.js';
import { oneByOne, type WholeJob } from './whole-job.js';

const STAGING_BUFFERS = 3;
const PREFILL_BUFFERS = 2;

const HOMES: Readonly<Record<Tier, readonly KvHome[]>> = {
  gpu: ['gpu'],
  cpu: ['cpuMoved', 'cpuAttended'],
  disk: ['diskMoved', 'diskAttended'],
};
const AWAY_HOMES: readonly KvHome[] = [...HOMES.cpu, ...HOMES.disk];
const MOVED_HOMES: readonly KvHome[] = ['cpuMoved', 'diskMoved'];
const ATTENDED_HOMES: readonly KvHome[] = ['cpuAttended', 'diskAttended'];

export function kvHomeBytes(setting: Setting, job: WholeJob, tier: Tier): Affine {
  return scale(setting.model.numLayers, layerBytes(setting, job, job.blocks, tier));
}

/** On disk: staged in RAM. */
export function diskKvStaging(setting: Setting, job: WholeJob): Affine {
  return scale(STAGING_BUFFERS, layerBytes(setting, job, job.batches, 'disk'));
}

/** One layer's rows on a tier, of the batch of the set that has most there. */
function layerBytes(setting: Setting, job: WholeJob, set: BlockSet, tier: Tier): Affine {
  const { model, shape, shares } = setting;
  const rowBytes = kvRowBytes(model, shape.kvCacheBits);
  if (!isDiagonal(shape)) {
    const [reserved, bytes] =
      tier === 'disk' ? [reservedPages(model, shape.kvCacheBits), PAGE_BYTES] : [reservedTokens, rowBytes];
    return portionTerm(shares.kvCache.largestBatch(set, HOMES[tier], reserved), bytes);
  }
  const pageRows = kvPageRows(set.sequences);
  const pageBytes = tier === 'disk' ? inPages(pageRows * rowBytes) : pageRows * rowBytes;
  return largest([
    portionTerm(shares.kvCache.largestBatch(set, HOMES[tier], reservedTokens), pageBytes / pageRows),
    portionTerm(shares.kvCache.largestBatch(oneByOne(job), HOMES[tier], kvPages(pageRows)), pageBytes),
  ]);
}

/** Pages of direct I/O for one layer's KV rows of a sequence. */
const reservedPages = rememberedFor(
  (model: ModelConfig, kvCacheBits: 16 | 4): Amount =>
    (length) =>
      Math.ceil((reservedTokens(length) * kvRowBytes(model, kvCacheBits)) / PAGE_BYTES),
);

const kvPagesOfRows = new Map<number, Amount>();

/** Pages of the KV cache that a sequence reserves: of one page size always the same function. */
function kvPages(pageRows: number): Amount {
  const amount = kvPagesOfRows.get(pageRows) ?? ((length) => kvPagesOf(reservedTokens(length), pageRows));
  kvPagesOfRows.set(pageRows, amount);
  return amount;
}

/** On the device, what is not at home there; the largest of these. */
export function deviceKvStaging(setting: Setting, job: WholeJob): Affine[] {
  const rowBytes = kvRowBytes(setting.model, setting.shape.kvCacheBits);
  const rows = [prefillRows(setting, job), decodeRows(setting, job)];
  if (isDiagonal(setting.shape)) rows.push(longestAttendedRows(setting, job));
  return rows.map((amount) => scale(rowBytes, amount));
}

/** Prefill attends on the device, so every slot that is not at home there passes through it. */
function prefillRows({ shares }: Setting, { chunks }: WholeJob): Affine {
  return portionTerm(shares.kvCache.largestBatch(chunks, AWAY_HOMES, promptTokensOf), PREFILL_BUFFERS);
}

function decodeRows({ shares }: Setting, { batches }: WholeJob): Affine {
  return scale(
    STAGING_BUFFERS,
    sum(
      portionTerm(shares.kvCache.largestBatch(batches, MOVED_HOMES, reservedTokens)),
      portionTerm(shares.kvCache.largestBatch(batches, ATTENDED_HOMES, oneSequence)),
    ),
  );
}

/** A prompt of a slot that the CPU attends to afterwards. */
function longestAttendedRows({ shares }: Setting, job: WholeJob): Affine {
  return portionTerm(shares.kvCache.largestBatch(oneByOne(job), ATTENDED_HOMES, promptTokensOf), STAGING_BUFFERS);
}
