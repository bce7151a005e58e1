/**
 * One job under its plan, without text: random prompts of one length through the engine. Prints one JSON document.
 *
 *   node native/test/gpu/job.mjs <model folder> <plan.json> <number of sequences> <device>
 */
import { readFileSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { Engine, openModelFolder, workloadFromNumbers } from '../../../dist/index.js';

const [modelFolder, planFile, count, device] = process.argv.slice(2);
const plan = JSON.parse(readFileSync(planFile, 'utf8'));
const { promptTokens, genTokens } = plan.workload;
const numSequences = Number(count);
const folder = await openModelFolder(modelFolder);
const { gpu, cpu, disk } = plan.hardware.capacityBytes;

let state = 7;
const randomId = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return 4 + (state % (folder.model.vocabSize - 4));
};
const sequences = Array.from({ length: numSequences }, () => ({
  promptIds: Int32Array.from({ length: promptTokens }, randomId),
  maxTokens: genTokens,
  temperature: 0,
  topP: 1,
  seed: 0,
  stopIds: new Int32Array(0),
  logitsSteps: 0,
  scorePrompt: false,
}));

const started = performance.now();
const engine = await Engine.open({
  folder,
  policy: plan.policy,
  workload: workloadFromNumbers(promptTokens, genTokens, numSequences),
  device,
  quantizationCache: false, // a job of 4 bits is run once, and the disk may be small
  capacityBytes: { ...(gpu && { gpu }), cpu, disk },
  ...(device === 'emulated' && { linkBytesPerSecond: { cpuToGpu: 8e9, gpuToCpu: 8e9 } }),
});
const loadSeconds = (performance.now() - started) / 1e3;
const { prefillSeconds, decodeSeconds, stageSeconds, trafficBytes, peakBytes } = await engine.run(sequences);
await engine.close();
const measured = (numSequences * genTokens) / (prefillSeconds + decodeSeconds);
const predicted = plan.estimate.genTokensPerSecond;
const document = {
  model: plan.model.name,
  device,
  workload: { promptTokens, genTokens, numSequences },
  policy: plan.policy,
  loadSeconds,
  prefillSeconds,
  decodeSeconds,
  genTokensPerSecond: { measured, predicted, error: predicted / measured - 1 },
  bottleneck: plan.estimate.bottleneck,
  stageSeconds,
  predictedStageSeconds: plan.estimate.stageSeconds,
  trafficBytes,
  peakBytes,
  predictedPeakBytes: plan.estimate.peakBytes,
};
console.log(JSON.stringify(document, null, 1));
