/**
 * The steps of the diagonal schedule as loads for the cost terms. A stretch of steps is a set of sequences of its own:
 * one that goes on through steps f <= i < t of its own is, to every formula, a sequence whose prompt has f - 1 tokens
 * more and that ends with step t - f of decode.
 */
import { diagonalRoom, listedLengths, slotsOf } from '../policy/room.js';
import type { SlotRuns } from '../policy/slots.js';
import { remembered } from '../remembered.js';
import type { Phase } from '../tiers.js';
import { workloadFromSequences } from '../workload/blocks.js';
import type { SequenceLength, Workload } from '../workload/workload.js';
import { blockSets, type BlockSet } from './block-sets.js';
import { diagonalSteps, type DiagonalSteps, type Visit } from './diagonal-steps.js';
import { DECODE, PREFILL, type Launch, type StepGroup, type StepLoad, type StepRange } from './loads.js';
import type { Setting } from './movement.js';
import { counted, kvHomeOf, type Shares, type SlotShares } from './shares.js';

/** Consecutive steps are priced together, so many times; those with prompts and those without each as one. */
const MOST_STRETCHES = 48;

/** A sequence in some steps of a stretch. */
interface Presence {
  readonly slot: number;
  readonly length: SequenceLength;
  /** Steps `from <= i < to` of the block. */
  readonly from: number;
  readonly to: number;
}

type Present = Map<BlockSet, readonly Presence[]>;

/** Steps `from <= i < to` that are all with prompts, or all without. */
interface Run {
  readonly stretch: Stretch;
  readonly from: number;
  to: number;
}

interface Stretch {
  readonly hasPrompts: boolean;
  readonly runs: Run[];
  readonly prompts: Presence[];
  readonly tokens: Presence[];
}

interface DiagonalWork {
  /** Of the sets in `groups`. */
  readonly shares: Shares;
  /** A step with prompts is prefill. */
  readonly groups: readonly { readonly phase: Phase; readonly group: StepGroup }[];
}

/** The steps of a job whose slots are realised. */
export function simulateDiagonal(
  { shape, device }: Pick<Setting, 'shape' | 'device'>,
  workload: Workload,
  slotRuns: SlotRuns,
): DiagonalSteps {
  const lengths = listedLengths(shape, workload);
  const room = diagonalRoom(shape, workload, slotRuns, device);
  const slots = slotsOf(slotRuns).slice(0, lengths.length);
  const deviceTier = device === 'cpu' ? 'cpu' : 'gpu';
  return diagonalSteps({ slots, gpuBatchSize: shape.gpuBatchSize, room, deviceTier }, lengths);
}

/** The same as groups of steps, and what is where in them. */
export function diagonalWork(setting: Setting, workload: Workload, slotRuns: SlotRuns): DiagonalWork {
  const { shape, shares } = setting;
  const steps = simulateDiagonal(setting, workload, slotRuns);
  const items = new Items(steps, shape);
  const present: Present = new Map();
  const groups = stretchesOf(steps, items).map((stretch): { phase: Phase; group: StepGroup } => ({
    phase: stretch.hasPrompts ? 'prefill' : 'decode',
    group: groupOfStretch(stretch, items, present),
  }));
  const kvHomes = perSlot(slotRuns.kvCache, kvHomeOf);
  const tiers = perSlot(slotRuns.activations, ({ tier }) => tier);
  return {
    shares: {
      weights: shares.weights,
      kvCache: { ...shares.kvCache, ...presentShares(present, kvHomes, shape.gpuBatchSize) },
      activations: { ...shares.activations, ...presentShares(present, tiers, shape.gpuBatchSize) },
    },
    groups,
  };
}

function perSlot<R extends { readonly first: number; readonly end: number }, Home>(
  runs: readonly R[],
  homeOf: (run: R) => Home,
): Home[] {
  return runs.flatMap((run) => new Array<Home>(run.end - run.first).fill(homeOf(run)));
}

/** What each GPU batch launches in each step. */
class Items {
  readonly #numBatches: number;
  readonly #live: Int32Array;
  readonly #numPrompts: Int32Array;
  readonly #promptTokens: Float64Array;

  constructor({ numSteps, visits }: DiagonalSteps, { gpuBatchSize, numGpuBatches }: Setting['shape']) {
    const size = (numSteps + 1) * numGpuBatches;
    this.#numBatches = numGpuBatches;
    this.#live = new Int32Array(size);
    this.#numPrompts = new Int32Array(size);
    this.#promptTokens = new Float64Array(size);
    for (const { slot, length, firstStep, lastStep } of visits) {
      const batch = Math.floor(slot / gpuBatchSize);
      const first = firstStep * numGpuBatches + batch;
      this.#numPrompts[first]! += 1;
      this.#promptTokens[first]! += length.promptTokens;
      this.#live[first]! += 1;
      this.#live[(lastStep + 1) * numGpuBatches + batch]! -= 1;
    }
    for (let n = numGpuBatches; n < size; n++) this.#live[n]! += this.#live[n - numGpuBatches]!;
  }

  hasPrompts(step: number): boolean {
    return this.#some(this.#numPrompts, step);
  }

  isEmpty(step: number): boolean {
    return !this.#some(this.#live, step);
  }

  #some(values: Int32Array, step: number): boolean {
    return values.subarray(step * this.#numBatches, (step + 1) * this.#numBatches).some((value) => value > 0);
  }

  /** Of items with prompts, or of those without. */
  launches(runs: readonly Run[], withPrompts: boolean): Launch[] {
    const counts = new Map<string, { tokens: number; sequences: number; count: number }>();
    for (const { from, to } of runs)
      for (let n = from * this.#numBatches; n < to * this.#numBatches; n++) {
        const sequences = this.#live[n]!;
        if (sequences === 0 || this.#numPrompts[n]! > 0 !== withPrompts) continue;
        const tokens = sequences - this.#numPrompts[n]! + this.#promptTokens[n]!;
        const key = `${tokens} ${sequences}`;
        const known = counts.get(key);
        if (known) known.count += 1;
        else counts.set(key, { tokens, sequences, count: 1 });
      }
    return [...counts.values()];
  }
}

/** Consecutive steps, those with prompts apart from those without, and who is in them. */
function stretchesOf({ numSteps, visits }: DiagonalSteps, items: Items): Stretch[] {
  const stepsOfStretch = Math.ceil(numSteps / MOST_STRETCHES);
  const stretches: Stretch[] = [];
  const runOfStep: Run[] = [];
  for (let from = 0; from < numSteps; from += stepsOfStretch) {
    const both = [true, false].map((hasPrompts): Stretch => ({ hasPrompts, runs: [], prompts: [], tokens: [] }));
    for (let step = from; step < Math.min(from + stepsOfStretch, numSteps); step++)
      runOfStep.push(runAt(step, items, both, runOfStep[step - 1]));
    stretches.push(...both.filter(({ runs }) => runs.length > 0));
  }
  for (const visit of visits) addVisit(visit, runOfStep);
  return stretches;
}

/** A step without anybody goes with the one before it. */
function runAt(step: number, items: Items, [prompts, none]: readonly Stretch[], last: Run | undefined): Run {
  const stretch = items.isEmpty(step) && last ? last.stretch : items.hasPrompts(step) ? prompts! : none!;
  if (last?.stretch === stretch) {
    last.to = step + 1;
    return last;
  }
  const run = { stretch, from: step, to: step + 1 };
  stretch.runs.push(run);
  return run;
}

function addVisit({ slot, length, firstStep, lastStep }: Visit, runOfStep: readonly Run[]): void {
  runOfStep[firstStep]!.stretch.prompts.push({ slot, length, from: firstStep, to: firstStep + 1 });
  for (let from = firstStep + 1; from <= lastStep;) {
    const run = runOfStep[from]!;
    const to = Math.min(run.to, lastStep + 1);
    const promptTokens = length.promptTokens + from - firstStep - 1;
    run.stretch.tokens.push({ slot, length: { promptTokens, genTokens: to - from + 1 }, from, to });
    from = to;
  }
}

function groupOfStretch({ runs, prompts, tokens }: Stretch, items: Items, present: Present): StepGroup {
  const numRuns = runs.reduce((sum, { from, to }) => sum + to - from, 0);
  const part = (presences: readonly Presence[], range: StepRange, launches: readonly Launch[]): StepLoad[] => {
    if (presences.length === 0) return [];
    const workload = workloadFromSequences(presences.map(({ length }) => length));
    const [set] = blockSets(workload, { gpuBatchSize: presences.length, numGpuBatches: 1 });
    present.set(set!, presences);
    return [{ set: set!, range, numRuns, launches }];
  };
  const parts = [
    ...part(prompts, PREFILL, items.launches(runs, true)),
    ...part(tokens, DECODE, items.launches(runs, false)),
  ];
  return { numRuns, launches: parts.flatMap(({ launches }) => launches), parts };
}

/** Counted presence by presence. */
function presentShares<Home>(
  present: Present,
  homeOf: readonly Home[],
  gpuBatchSize: number,
): Pick<SlotShares<Home>, 'total' | 'liveBatches'> {
  const at = remembered((homes: readonly Home[]) =>
    remembered((set: BlockSet) => present.get(set)!.filter(({ slot }) => homes.includes(homeOf[slot]!))),
  );
  return {
    total: (set, homes, amount) => counted(at(homes)(set).reduce((sum, { length }) => sum + amount(length), 0)),
    liveBatches: (set, homes) => counted(numItems(at(homes)(set), gpuBatchSize)),
  };
}

/** GPU batches x steps in which any of them is live. */
function numItems(presences: readonly Presence[], gpuBatchSize: number): number {
  const endOfBatch = new Map<number, number>();
  let total = 0;
  for (const { slot, from, to } of [...presences].sort((a, b) => a.from - b.from)) {
    const batch = Math.floor(slot / gpuBatchSize);
    const end = Math.max(endOfBatch.get(batch) ?? 0, from);
    total += Math.max(0, to - end);
    endOfBatch.set(batch, Math.max(end, to));
  }
  return total;
}
