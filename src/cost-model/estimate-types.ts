/** What the cost model answers, under the names of the documents (contract: `estimate`, `plan`). */
import type { Link, StageName, Tier } from '../tiers.js';

export type StageSeconds = Record<StageName, number>;
export type LinkBytes = Record<Link, number>;

/** Of the whole job when `workload.numSequences` is given, else of one full block. */
export interface Estimate {
  readonly prefillSeconds: number;
  readonly decodeSeconds: number;
  readonly totalSeconds: number;
  readonly genTokensPerSecond: number;
  readonly bottleneck: { readonly prefill: StageName; readonly decode: StageName };
  readonly stageSeconds: { readonly prefill: StageSeconds; readonly decode: StageSeconds };
  readonly trafficBytes: { readonly prefill: LinkBytes; readonly decode: LinkBytes };
  readonly peakBytes: Record<Tier, number>;
  readonly fits: Record<Tier, boolean>;
}
