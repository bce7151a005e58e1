/** The library: what the commands are made of. Planning alone, without engine, runs wherever JavaScript does. */
export { FlexplanError, type ErrorCode } from './errors.js';
export type { Device, Link, Phase, StageName, Tier } from './tiers.js';
export { formatBytes, formatRate, formatSeconds, parseBytes, parseRate } from './units.js';

export type { ModelConfig } from './models/model-config.js';
export { readModelConfig } from './models/config-reader.js';
export { findModel, knownModels } from './models/registry.js';
export { parameterCount } from './models/tensors.js';
export type { SequenceLength, Workload } from './workload/workload.js';
export { workloadFromNumbers, workloadFromSequences } from './workload/blocks.js';
export type { HardwareProfile } from './hardware/hardware-profile.js';
export { checkHardwareProfile } from './hardware/check-profile.js';
export type { Placement, Policy } from './policy/policy.js';
export { checkPolicy, policyFromPercent } from './policy/check-policy.js';
export { realise, type Realisation } from './policy/realisation.js';

export type { Estimate } from './cost-model/estimate-types.js';
export { estimate, type EstimateOptions } from './cost-model/estimate.js';
export type { OptimizeOptions } from './solver/options.js';
export type { InfeasibleResult } from './solver/infeasible.js';
export { optimize, type PlanResult } from './solver/optimize.js';
export { pareto, type ParetoPoint } from './solver/pareto.js';
export { explain } from './solver/explain.js';
export { checkPlan } from './solver/check-plan.js';
export type { Plan } from './solver/plan.js';

export { Engine, type EngineOptions, type RunResult, type Sequence } from './engine/engine.js';
export { generate, type Completion, type GenerateOptions } from './engine/generate.js';
export { loadModelConfig, openModelFolder, type ModelFolder } from './engine/model-folder.js';
export { loadTokenizer, type Tokenizer } from './engine/tokenizer.js';
export { perplexity } from './engine/perplexity.js';
export { everythingInMemory } from './engine/default-policy.js';
export { readPromptFile, type PromptFile } from './batch/prompt-file.js';
export { runBatch, type BatchOptions, type BatchResult } from './batch/run-batch.js';
export { hostLimits, type HostLimits } from './engine/host-limits.js';
export { withInstruments } from './engine/instruments.js';
export { profileMachine, type ProfileOptions } from './profiler/profile-machine.js';
