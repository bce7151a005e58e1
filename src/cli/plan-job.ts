/** From the command line's words to a plan, or to what is missing for one. */
import type { HardwareProfile } from '../hardware/hardware-profile.js';
import type { ModelConfig } from '../models/model-config.js';
import type { InfeasibleResult } from '../solver/infeasible.js';
import { optimize, type PlanResult } from '../solver/optimize.js';
import type { OptimizeOptions } from '../solver/options.js';
import { pareto, type ParetoPoint } from '../solver/pareto.js';
import type { Workload } from '../workload/workload.js';
import { formatBytes } from '../units.js';
import type { CommandResult } from './command.js';
import type { DeviceRequest } from './device.js';
import { TIER_WORDS } from './format.js';
import { cappedProfile } from './hardware.js';
import { loadModel } from './model.js';
import { chosenWorkload, type WorkloadRequest } from './workload.js';

export interface PlanRequest extends Omit<DeviceRequest, 'device' | 'linkBandwidth'>, WorkloadRequest {
  readonly hw: string;
  readonly weightBits?: 16 | 4 | 'auto' | undefined;
  readonly kvBits?: 16 | 4 | 'auto' | undefined;
  readonly sparseValues?: number | undefined;
  readonly maxLatencySeconds?: number | undefined;
  readonly gpuBatchSize?: number | undefined;
  readonly numGpuBatches?: number | undefined;
}

export type PlannedJob = PlanResult | { readonly status: 'infeasible'; readonly result: CommandResult };

const INFEASIBLE_EXIT_CODE = 3;

interface ResolvedJob {
  readonly model: ModelConfig;
  readonly hardware: HardwareProfile;
  readonly workload: Workload;
  readonly options: Partial<OptimizeOptions>;
}

async function resolveJob(request: PlanRequest): Promise<ResolvedJob> {
  const hardware = cappedProfile(request.hw, request);
  const model = await loadModel(request.model);
  const workload = await chosenWorkload(request, model);
  const { weightBits, kvBits: kvCacheBits, sparseValues: sparseValueFraction } = request;
  const { maxLatencySeconds, gpuBatchSize, numGpuBatches } = request;
  const chosen = { weightBits, kvCacheBits, maxLatencySeconds, gpuBatchSize, numGpuBatches, sparseValueFraction };
  const options = Object.fromEntries(Object.entries(chosen).filter(([, value]) => value !== undefined));
  return { model, hardware, workload, options };
}

export async function planJob(request: PlanRequest): Promise<PlannedJob> {
  const { model, hardware, workload, options } = await resolveJob(request);
  const result = await optimize(model, hardware, workload, options);
  return result.status === 'optimal' ? result : { status: 'infeasible', result: infeasibleResult(result) };
}

/** Throughput against the latency of a block, slowest first. */
export async function paretoOf(request: PlanRequest): Promise<ParetoPoint[]> {
  const { model, hardware, workload, options } = await resolveJob(request);
  return pareto(model, hardware, workload, options);
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
