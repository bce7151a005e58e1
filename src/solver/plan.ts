/** The plan document: what `optimize` writes and `run` takes. */
import type { Estimate } from '../cost-model/estimate-types.js';
import type { WeightIo } from '../cost-model/io-bounds.js';
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import type { Placement, Policy, TensorClass, TierBytes } from '../policy/policy.js';
import type { Device, Link } from '../tiers.js';
import type { Workload } from '../workload/workload.js';
import type { Certificate } from './certificate.js';

/** What the search did. Seconds are wall clock, measured by whoever called it (the search itself reads no clock). */
export interface SearchSummary {
  readonly status: 'optimal';
  readonly programsSolved: number;
  /** Batch shapes with bit widths that were considered. */
  readonly candidates: number;
  /** Considered and left out because a bound proves that they cannot win. */
  readonly prunedByBound: number;
  /** Considered and left out because no placement of theirs fits. */
  readonly infeasible: number;
  /** Considered, but the solver gave up on their program: the only ones about which nothing is proven. */
  readonly failed: number;
  readonly seconds: number;
  readonly solvingSeconds: number;
  /** Of the chosen shape's linear program, before rounding to whole slices. */
  readonly relaxedGenTokensPerSecond: number;
  /**
   * 1 - realised / relaxed throughput: what rounding to whole rows and sequences costs. A little below 0 where the
   * slices do better than fractions can know: positions that no prompt reaches are the last rows of their table, so
   * those that lie on disk are never read.
   */
  readonly roundingLossFraction: number;
}

/** The same job under another policy. */
export interface Alternative {
  /** `runner-up`, or the system whose policy it is. */
  readonly name: string;
  readonly policy: Policy;
  readonly genTokensPerSecond: number;
  readonly totalSeconds: number;
  readonly fits: boolean;
}

export type Resource = 'gpuCapacity' | 'cpuCapacity' | 'diskCapacity' | Link;

/** What more of one resource is worth, with everything planned anew. */
export interface Sensitivity {
  readonly resource: Resource;
  /** `8 GiB`, or `2x`. */
  readonly add: string;
  readonly genTokensPerSecondDelta: number;
  /** What the duals of the chosen linear program say of the first byte (or byte per second), times the amount added. */
  readonly firstOrderDelta: number;
}

/** What the whole job takes. */
export interface JobSummary {
  readonly numSequences: number;
  readonly numBlocks: number;
  /**
   * From the start of a full block to its last token: the latency that `maxLatencySeconds` limits. Of blocks that
   * differ, the mean.
   */
  readonly blockSeconds: number;
  readonly hours: number;
  /** From the spread of the profile's rates: all of them slow, all of them fast. */
  readonly hoursRange: readonly [number, number];
  readonly diskWriteBytes: number;
}

export interface Plan {
  readonly schemaVersion: 1;
  readonly source: 'estimated';
  readonly model: ModelConfig;
  readonly hardware: {
    readonly name: string;
    readonly device: Device;
    readonly capacityBytes: TierBytes;
    /**
     * The machine as planned for, caps applied: `run` predicts other prompts with it, and paces the emulated links by
     * it.
     */
    readonly profile: HardwareProfile;
  };
  readonly workload: Omit<Workload, 'sequences'>;
  readonly policy: Policy;
  /** Of the policy as it is realised. */
  readonly estimate: Estimate;
  readonly realised: {
    readonly placement: Placement;
    readonly bytes: Readonly<Record<TensorClass, TierBytes>>;
  };
  readonly search: SearchSummary;
  /** Independent proof that the linear program of the chosen shape was solved to its optimum. */
  readonly certificate: Certificate;
  readonly job: JobSummary;
  /** Loads of a decoder layer's weights, against the least that any schedule of this machine's capacity needs. */
  readonly weightIo: WeightIo;
  readonly alternatives: readonly Alternative[];
  readonly sensitivity: readonly Sensitivity[];
}
