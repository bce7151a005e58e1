/** What a page bundles to plan: everything but the engine. */
export { checkHardwareProfile } from '../../src/hardware/check-profile.js';
export { readModelConfig } from '../../src/models/config-reader.js';
export { findModel } from '../../src/models/registry.js';
export { policyFromPercent } from '../../src/policy/check-policy.js';
export { estimate } from '../../src/cost-model/estimate.js';
export { explain } from '../../src/solver/explain.js';
export { checkPlan } from '../../src/solver/check-plan.js';
export { optimize } from '../../src/solver/optimize.js';
export { workloadFromNumbers, workloadFromSequences } from '../../src/workload/blocks.js';
