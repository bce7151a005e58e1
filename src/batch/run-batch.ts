/** A prompt file through an engine into a result file that survives a kill. */
import { CompletionBuilder, CompletionCollector, type CompletionText } from '../engine/completion.js';
import { Engine, type EngineOptions, type RunResult } from '../engine/engine.js';
import { workloadOf } from '../engine/generate.js';
import type { Tokenizer } from '../engine/tokenizer.js';
import { Journal } from './journal.js';
import { type PreparedRequest, type PromptFile, sequenceOf } from './prompt-file.js';
import { errorLine, resultLine } from './result-line.js';

export interface BatchProgress {
  readonly finishedRequests: number;
  readonly totalRequests: number;
  /** Generated in this run. */
  readonly genTokens: number;
}

export interface BatchOptions {
  readonly prompts: PromptFile;
  readonly tokenizer?: Tokenizer;
  readonly outputPath: string;
  /** Whether an existing output may be replaced. Absent: false. */
  readonly overwrite?: boolean;
  /** The workload is that of the requests which are still to do. */
  readonly engine: Omit<EngineOptions, 'workload'>;
  readonly onProgress?: (progress: BatchProgress) => void;
}

export interface BatchResult {
  /** Absent when an earlier run had already finished everything. */
  readonly run?: RunResult;
  /** What the run's engine was opened for: the requests that were still to do. */
  readonly requests: readonly PreparedRequest[];
  readonly resumedRequests: number;
  readonly badRequests: number;
}

/**
 * Runs the requests that are not finished yet and writes each result as soon as it is there.
 * Interrupted or killed, the same call goes on where it stopped; results do not depend on how often that happened.
 */
export async function runBatch(options: BatchOptions): Promise<BatchResult> {
  const { prompts, outputPath, overwrite = false } = options;
  const journal = Journal.open({ outputPath, overwrite, identity: identityOf(options) });
  const { finishedIds } = journal;
  try {
    journal.append(prompts.badRequests.filter(({ customId }) => !finishedIds.has(customId)).map(errorLine));
    const requests = prompts.requests.filter(({ customId }) => !finishedIds.has(customId));
    const run = requests.length > 0 ? await runRequests(options, requests, journal) : undefined;
    journal.finish();
    return {
      ...(run ? { run } : {}),
      requests,
      resumedRequests: prompts.requests.length - requests.length,
      badRequests: prompts.badRequests.length,
    };
  } catch (error) {
    journal.suspend();
    throw error;
  }
}

/**
 * Results depend on the model, the bits, the rows of V that count and the prompts: not on placement, batch shape or
 * device tier.
 */
function identityOf({ prompts, engine }: BatchOptions): { input: string; settings: unknown } {
  const { folder, policy, device } = engine;
  const { weightBits, kvCacheBits, quantGroupSize, sparseValueFraction = 1 } = policy;
  const files = folder.tensors.map(({ file }) => [file.path, file.byteOffset, file.byteLength]);
  return {
    input: prompts.text,
    settings: { model: folder.model, files, weightBits, kvCacheBits, quantGroupSize, sparseValueFraction, device },
  };
}

async function runRequests(
  { prompts, tokenizer, engine: engineOptions, onProgress }: BatchOptions,
  requests: readonly PreparedRequest[],
  journal: Journal,
): Promise<RunResult> {
  const { model } = engineOptions.folder;
  const sequences = requests.map((request) => sequenceOf(request, model));
  const workload = workloadOf(sequences);
  const engine = await Engine.open({ ...engineOptions, workload }).catch((error: unknown) => {
    journal.discardIfEmpty();
    throw error;
  });
  let finishedRequests = prompts.requests.length - requests.length;
  let genTokens = 0;
  try {
    const builders = requests.map(({ stopStrings }) => new CompletionBuilder(tokenizer, stopStrings));
    const collector = new CompletionCollector(builders, (sequence) => engine.cancelSequence(sequence));
    const lineOf = (sequence: number, completion: CompletionText) =>
      resultLine(requests[sequence]!, completion, model.name);
    return await engine.run(sequences, {
      onStep: (event) => {
        // A sequence that was cut short by an interruption is not a result.
        const finished = collector.step(event).filter(({ completion }) => completion.finishReason !== 'cancelled');
        journal.append(finished.map(({ sequence, completion }) => lineOf(sequence, completion)));
        finishedRequests += finished.length;
        genTokens += event.tokenIds.length;
        onProgress?.({ finishedRequests, totalRequests: prompts.requests.length, genTokens });
      },
      ...(engineOptions.signal ? { signal: engineOptions.signal } : {}),
    });
  } finally {
    await engine.close();
  }
}
