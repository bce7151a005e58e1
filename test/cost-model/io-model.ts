/** Slow twins of io-bounds.ts: rows stepped one column at a time, and the best schedule found by trying all of them. */

export interface Job {
  readonly numLayers: number;
  readonly promptTokens: number;
  readonly genTokens: number;
  readonly kvTokenBytes: number;
  readonly hiddenTokenBytes: number;
}

/** Bytes kept after so many columns, counted token by token and layer by layer. */
export function countedSequenceBytes(job: Job, columnsDone: number): number {
  const columns = job.numLayers * job.genTokens;
  if (columnsDone === 0 || columnsDone === columns) return 0;
  let kvTokens = 0;
  for (let column = 0; column < columnsDone; column++) kvTokens += column < job.numLayers ? job.promptTokens : 1;
  const nextIsPrefill = columnsDone < job.numLayers;
  return kvTokens * job.kvTokenBytes + (nextIsPrefill ? job.promptTokens : 1) * job.hiddenTokenBytes;
}

/** Executes loads under the model's rules and counts what they cost. */
export class Host {
  readonly done: number[];
  loads = 0;
  peakBytes = 0;
  usedBytes = 0;
  kvTokensMoved = 0;
  hiddenTokensMoved = 0;

  constructor(
    readonly job: Job,
    numRows: number,
    readonly capacityBytes = Infinity,
  ) {
    this.done = new Array<number>(numRows).fill(0);
  }

  get columns(): number {
    return this.job.numLayers * this.job.genTokens;
  }

  get finished(): boolean {
    return this.done.every((done) => done === this.columns);
  }

  /** Layers from 0. */
  nextLayer(row: number): number {
    return this.done[row]! % this.job.numLayers;
  }

  load(layer: number, rows: readonly number[]): void {
    this.loads++;
    for (const row of rows) this.advance(layer, row);
  }

  private advance(layer: number, row: number): void {
    const before = this.done[row]!;
    if (before === this.columns || this.nextLayer(row) !== layer) throw new Error('not the next column of this row');
    const token = Math.floor(before / this.job.numLayers);
    const newTokens = token === 0 ? this.job.promptTokens : 1;
    const pastTokens = token === 0 ? 0 : this.job.promptTokens + token - 1;
    this.kvTokensMoved += pastTokens + newTokens;
    this.hiddenTokensMoved += 2 * newTokens;
    this.done[row] = before + 1;
    this.usedBytes += countedSequenceBytes(this.job, before + 1) - countedSequenceBytes(this.job, before);
    this.peakBytes = Math.max(this.peakBytes, this.usedBytes);
    if (this.usedBytes > this.capacityBytes) throw new Error('capacity exceeded');
  }
}

export function runRowByRow(host: Host, batchRows: number): Host {
  for (let first = 0; first < host.done.length; first += batchRows) {
    const rows = host.done.map((_, row) => row).slice(first, first + batchRows);
    for (let column = 0; column < host.columns; column++) host.load(column % host.job.numLayers, rows);
  }
  return host;
}

export function runDiagonal(host: Host, groupRows: number, stride: number): Host {
  const rows = host.done.map((_, row) => row);
  for (let step = 0; !host.finished; step++) {
    const opened = rows.slice(0, (Math.floor(step / stride) + 1) * groupRows);
    for (let layer = 0; layer < host.job.numLayers; layer++)
      host.load(
        layer,
        opened.filter((row) => host.done[row]! < host.columns),
      );
  }
  return host;
}

/** All ways to take at most the given count of each position. */
function* choices(counts: readonly number[], position = 0): Generator<number[]> {
  if (position === counts.length) {
    yield [];
    return;
  }
  for (const rest of choices(counts, position + 1))
    for (let taken = 0; taken <= counts[position]!; taken++) yield [taken, ...rest];
}

/**
 * The fewest loads of any schedule, by breadth-first search. A state counts the rows at each position (columns done);
 * rows are alike, so no more is needed. Undefined when nothing fits.
 */
export function fewestLoads(job: Job, numRows: number, capacityBytes: number): number | undefined {
  const columns = job.numLayers * job.genTokens;
  const bytes = Array.from({ length: columns + 1 }, (_, done) => countedSequenceBytes(job, done));
  const start = [numRows, ...new Array<number>(columns).fill(0)];
  let frontier = [start];
  const seen = new Set([start.join()]);
  for (let loads = 1; frontier.length > 0; loads++) {
    const reached: number[][] = [];
    for (const state of frontier) {
      for (let layer = 0; layer < job.numLayers; layer++) {
        const positions = Array.from({ length: job.genTokens }, (_, token) => token * job.numLayers + layer);
        for (const taken of choices(positions.map((position) => state[position]!))) {
          const next = [...state];
          positions.forEach((position, i) => {
            next[position]! -= taken[i]!;
            next[position + 1]! += taken[i]!;
          });
          if (next.reduce((sum, count, done) => sum + count * bytes[done]!, 0) > capacityBytes) continue;
          if (next[columns] === numRows) return loads;
          const key = next.join();
          if (seen.has(key)) continue;
          seen.add(key);
          reached.push(next);
        }
      }
    }
    frontier = reached;
  }
  return undefined;
}
