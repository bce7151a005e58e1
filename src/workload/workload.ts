/** One prompt's token counts. `genTokens` is the most that may be generated for it. */
export interface SequenceLength {
  readonly promptTokens: number;
  readonly genTokens: number;
}

/**
 * The job: how many sequences, how long. `promptTokens` and `genTokens` are the largest of the file;
 * `sequences`, where known, has the exact counts in the order in which they will run.
 */
export interface Workload {
  readonly promptTokens: number;
  readonly genTokens: number;
  /** Absent: as many as wanted (plan for throughput of full blocks). */
  readonly numSequences?: number;
  readonly sequences?: readonly SequenceLength[];
  /** Tokens that all prompts begin with, as far as the engine shares them. Absent: 0. */
  readonly sharedPromptTokens?: number;
}
