/** Rows of the embedding tables that lie away from the device are fetched one by one, inside `compute` of `embed`. */
import { layerTensors, rowBytes, type LayerKind } from '../models/tensors.js';
import type { Amount } from '../workload/sequences.js';
import type { Affine } from './affine.js';
import { totalOf } from './block-sets.js';
import { newRows, newTokens, numLaunches, type StepLoad } from './loads.js';
import { AWAY_TIERS, isDisk, linksToDevice, type AwayTier, type Movement, type Setting } from './movement.js';

/** Rows that are read from disk at once, then copied together. */
export const EMBEDDING_ROWS_IN_FLIGHT = 64;
const POSITIONS = 'positionEmbedding';

/** Of one table, the rows that a step load fetches from a tier: `share` x `count`. */
interface RowFetch {
  readonly kind: LayerKind;
  readonly role: string;
  readonly home: AwayTier;
  readonly share: Affine;
  readonly count: number;
}

export function embeddingRowMovements(setting: Setting, load: StepLoad): Movement[] {
  return AWAY_TIERS.flatMap((home) => [tokenRows(setting, load, home), ...positionRows(setting, load, home)]).flatMap(
    (fetch) => rowMovements(setting, load, fetch),
  );
}

/** Token ids are taken to be spread evenly over the vocabulary. */
function tokenRows({ model, shares }: Setting, load: StepLoad, home: AwayTier): RowFetch {
  const table = model.tiedEmbeddings
    ? { kind: 'head' as const, role: 'head' }
    : { kind: 'embed' as const, role: 'tokenEmbedding' };
  const { amount, share } = shares.weights.rows(table.kind, table.role, home, model.vocabSize);
  return { ...table, home, share, count: (totalOf(load.set, newTokens(load)) * amount) / model.vocabSize };
}

/** Which positions a step needs is known. */
function positionRows({ model, shares }: Setting, load: StepLoad, home: AwayTier): RowFetch[] {
  const { positions } = model;
  if (positions.kind !== 'learned') return [];
  const { from } = load.range;
  const first: Amount = ({ promptTokens }) => positions.offset + (from === 0 ? 0 : promptTokens + from - 1);
  const rows = shares.weights.rowsOfSequences(load.set, 'embed', POSITIONS, home, first, newRows(load.range));
  return [{ kind: 'embed', role: POSITIONS, home, share: rows.share, count: rows.amount }];
}

/**
 * From disk one request for each row; over the link one copy for each GPU batch, or for as many rows as are in flight.
 */
function rowMovements({ model, shape, hasGpu }: Setting, load: StepLoad, fetch: RowFetch): Movement[] {
  const { kind, role, home, share, count } = fetch;
  const table = layerTensors(model, kind).find((tensor) => tensor.role === role)!;
  const bytes = count * rowBytes(model, table, shape.weightBits);
  const copies = Math.max(Math.min(numLaunches(load), count), home === 'disk' ? count / EMBEDDING_ROWS_IN_FLIGHT : 0);
  return linksToDevice(home, hasGpu).map((link) => ({
    task: 'compute',
    link,
    home,
    share,
    bytes,
    transfers: isDisk(link) ? count : copies,
  }));
}
