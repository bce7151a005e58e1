/** From the command line's words to a plan, or to what is missing for one. */
import { loadModel } from './model.js';
import { optimize, type PlanResult } from '../solver/optimize.js';
import type { InfeasibleResult } from '../solver/infeasible.js';
import { formatBytes } from '../units.js';
import type { CommandResult } from './command.js';
import type { DeviceRequest } from './device.js';
import { TIER_WORDS } from './format.js';
import { cappedProfile } from './hardware.js';
import { chosenWorkload, type WorkloadRequest } from './workload.js';

export interface PlanRequest extends Omit<DeviceRequest, 'device' | 'linkBandwidth'>, WorkloadRequest {
  readonly hw: string;
  readonly weightBits?: 16 | 4 | 'auto' | undefined;
  readonly kvBits?: 16 | 4 | 'auto' | undefined;
  readonly maxLatencySeconds?: number | undefined;
  readonly gpuBatchSize?: number | undefined;
  readonly numGpuBatches?: number | undefined;
}

export type PlannedJob = PlanResult | { readonly status: 'infeasible'; readonly result: CommandResult };

const INFEASIBLE_EXIT_CODE = 3;

export async function planJob(request: PlanRequest): Promise<PlannedJob> {
  const hardware = cappedProfile(request.hw, request);
  const model = await loadModel(request.model);
  const workload = await chosenWorkload(request, model);
  const { weightBits, kvBits: kvCacheBits, maxLatencySeconds, gpuBatchSize, numGpuBatches } = request;
  const chosen = { weightBits, kvCacheBits, maxLatencySeconds, gpuBatchSize, numGpuBatches };
  const given = Object.fromEntries(Object.entries(chosen).filter(([, value]) => value !== undefined));
  const result = await optimize(model, hardware, workload, given);
  return result.status === 'optimal' ? result : { status: 'infeasible', result: infeasibleResult(result) };
}

function infeasibleResult(document: InfeasibleResult): CommandResult {
  return { document, exitCode: INFEASIBLE_EXIT_CODE, text: () => infeasibleText(document) };
}

/** One line: what lacks, and the cheapest ways out. */
function infeasibleText({ shortfall, remedies }: InfeasibleResult): string {
  const missing = shortfall.map(({ tier, missingBytes }) => `${TIER_WORDS[tier]} lacks ${formatBytes(missingBytes)}`);
  const reason = missing.length > 0 ? missing.join(', ') : 'every policy that fits takes longer than the latency limit';
  return `flexplan: expected a policy that fits, got none: ${reason}; ${remedies.join('; or ')}`;
}
