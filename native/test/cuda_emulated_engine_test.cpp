// The whole engine on the GPU's own kernels, emulated, behind the fake driver: every family, storage and policy that
// the CPU device runs gives nearly the same logits.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "engine/engine.h"
#include "test/check.h"
#include "test/fake_cuda.h"
#include "test/tiny_model.h"

namespace flexplan::test {
namespace {

constexpr int64_t kGpuBytes = int64_t{96} << 20;

RunResult runOnce(const EngineConfig& config, const std::vector<Sequence>& sequences) {
  Engine engine(config);
  engine.open();
  return engine.run(sequences, [](const StepEvent&) {}, Cancellation(sequences.size()));
}

// The largest difference of any logits while the tokens are the same, as a fraction of the largest logit.
double logitsError(const RunResult& result, const RunResult& expected) {
  double worst = 0, largest = 0;
  for (size_t n = 0; n < expected.sequences.size(); ++n) {
    const SequenceResult &a = result.sequences[n], &b = expected.sequences[n];
    for (size_t step = 0; step < std::min(a.logits.size(), b.logits.size()); ++step) {
      if (!std::equal(a.tokenIds.begin(), a.tokenIds.begin() + static_cast<int64_t>(step), b.tokenIds.begin())) break;
      for (size_t v = 0; v < b.logits[step].size(); ++v) {
        worst = std::max(worst, static_cast<double>(std::abs(a.logits[step][v] - b.logits[step][v])));
        largest = std::max(largest, static_cast<double>(std::abs(b.logits[step][v])));
      }
    }
  }
  return worst / largest;
}

// Greedy, all logits kept, one prompt long enough for the matmul of many tokens.
std::vector<Sequence> greedySequences(const ModelShape& shape, Random& random) {
  std::vector<Sequence> sequences = someSequences(shape, random, 4);
  for (Sequence& sequence : sequences) {
    sequence.temperature = 0;
    sequence.stopIds.clear();
    sequence.maxTokens = 3;
    sequence.logitsSteps = 3;
    sequence.scorePrompt = false;
  }
  for (int n = 0; n < 30; ++n) sequences[1].promptIds.push_back(static_cast<int32_t>(random.below(shape.vocabSize)));
  return sequences;
}

EngineConfig spread(EngineConfig config, bool away) {
  config.device = DeviceKind::kCuda;
  config.capacityBytes[Tier::kGpu] = kGpuBytes;
  config.gpuBatchSize = config.numGpuBatches = 2;
  const Tier home = away ? Tier::kCpu : Tier::kGpu;
  config.kvTiers = {Tier::kGpu, home, home, home};
  config.activationTiers = {home, Tier::kGpu, home, home};
  config.cpuAttention = {0, away, 0, 0};
  config.overlap = away;
  for (TensorSource& tensor : config.tensors)
    if (tensor.cols > 1) tensor.cpuRows = tensor.rows - (tensor.gpuRows = away ? tensor.rows / 3 : tensor.rows);
  return config;
}

void testFamilies(Checks& check) {
  const TemporaryFolder folder;
  Random random(31);
  forEachTinyCase(folder, [&](const TinyCase& tiny) {
    const auto sequences = greedySequences(tiny.model.shape, random);
    const RunResult onCpu = runOnce(tiny.base, sequences);
    // fp32: the order of sums. 16 bits: factors are rounded. 4-bit KV: a rounding moves a value to the next of 16
    // levels.
    const bool exact = tiny.model.shape.dtype == DataType::kFloat32 && tiny.base.weightBits == 16;
    const double tolerance = tiny.base.kvCacheBits == 4 ? 0.15 : exact ? 1e-4 : 0.03;
    for (const bool away : {false, true}) {
      freshMachine().immediate = true;
      const double error = logitsError(runOnce(spread(tiny.base, away), sequences), onCpu);
      const std::string what = tiny.name + (away ? ", away from the GPU" : "");
      check.that(error < tolerance, what + ": logits off by " + std::to_string(error));
      for (const std::string& rule : fakeMachine().brokenRules()) check.that(false, what + ": broken rule: " + rule);
      check.that(fakeMachine().isEmpty(), what + ": everything taken was given back");
    }
  });
}

}  // namespace
}  // namespace flexplan::test

int main() {
  setenv("FLEXPLAN_CUBLAS", "0", 1);
  flexplan::test::Checks check;
  flexplan::test::testFamilies(check);
  return check.finish();
}
