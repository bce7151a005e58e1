#include "test/cuda_engine_test.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <tuple>

#include "core/error.h"
#include "engine/engine.h"
#include "test/fake_cuda.h"
#include "test/tiny_model.h"

namespace flexplan::test {
namespace {

constexpr int64_t kGpuBytes = int64_t{96} << 20;

bool sameResults(const RunResult& a, const RunResult& b) {
  return std::ranges::equal(a.sequences, b.sequences, [](const SequenceResult& x, const SequenceResult& y) {
    return std::tie(x.tokenIds, x.finishReason, x.logits, x.promptLogProbs) ==
           std::tie(y.tokenIds, y.finishReason, y.logits, y.promptLogProbs);
  });
}

// The largest difference of logits at the first generated token, as a fraction of the largest logit of all: of each
// sequence, the smallest first.
std::vector<double> logitsErrors(const RunResult& result, const RunResult& expected) {
  std::vector<double> errors;
  double largest = 0;
  for (size_t n = 0; n < expected.sequences.size(); ++n) {
    if (expected.sequences[n].logits.empty()) continue;
    const auto& a = result.sequences[n].logits.front();
    const auto& b = expected.sequences[n].logits.front();
    double& worst = errors.emplace_back(0);
    for (size_t v = 0; v < b.size(); ++v) {
      worst = std::max(worst, static_cast<double>(std::abs(a[v] - b[v])));
      largest = std::max(largest, static_cast<double>(std::abs(b[v])));
    }
  }
  for (double& error : errors) error /= largest;
  std::ranges::sort(errors);
  return errors;
}

RunResult runOnce(const EngineConfig& config, const std::vector<Sequence>& sequences,
                  const StepCallback& onStep = [](const StepEvent&) {}) {
  Engine engine(config);
  engine.open();
  return engine.run(sequences, onStep, Cancellation(sequences.size()));
}

EngineConfig onCuda(EngineConfig config) {
  config.device = DeviceKind::kCuda;
  config.capacityBytes[Tier::kGpu] = kGpuBytes;
  return config;
}

EngineConfig randomCudaConfig(const EngineConfig& base, Random& random) {
  while (true) {
    const EngineConfig config = randomConfig(base, random);
    if (config.device == DeviceKind::kEmulated) return onCuda(config);
  }
}

void checkMachine(Checks& check, const std::string& what) {
  for (const std::string& rule : fakeMachine().brokenRules()) check.that(false, what + ": broken rule: " + rule);
  check.that(fakeMachine().isEmpty(), what + ": everything taken was given back");
}

// Random policies give the bits of the plainest one, and nearly those of the CPU: for fp32 models exactly.
void testPolicies(Checks& check, const TemporaryFolder& folder, int numPolicies) {
  Random random(21);
  forEachTinyCase(folder, [&](const TinyCase& tiny) {
    const auto sequences = someSequences(tiny.model.shape, random, 11);
    const RunResult onCpu = runOnce(tiny.base, sequences);
    freshMachine();
    const RunResult plain = runOnce(onCuda(tiny.base), sequences);
    const std::string what = "cuda engine, " + tiny.name;
    checkMachine(check, what);
    // Inputs of products are rounded to 16 bits, except for fp32 weights. What that does to a 4-bit KV cache is no
    // rounding: a value may fall to the next of 16 levels. With 4-bit weights the CPU rounds to 8 bits, so that a token
    // may even go to another of two experts of nearly the same score: most sequences are near, not all.
    const bool exact = tiny.model.shape.dtype == DataType::kFloat32 && tiny.base.weightBits == 16;
    const std::vector<double> errors = logitsErrors(plain, onCpu);
    const double error = tiny.base.weightBits == 4 ? errors[errors.size() / 2] : errors.back();
    check.that(exact ? sameResults(plain, onCpu) : tiny.base.kvCacheBits == 4 || error < 0.03,
               what + ": logits as on the CPU, off by " + std::to_string(error));
    for (int n = 0; n < numPolicies; ++n) {
      const EngineConfig config = randomCudaConfig(tiny.base, random);
      freshMachine().mostDelayMicroseconds = n % 2 == 0 ? 0 : 60;
      fakeMachine().seed = random.bits();
      check.that(sameResults(runOnce(config, sequences), plain), what + ": policy " + std::to_string(n));
      checkMachine(check, what);
    }
  });
}

EngineConfig someOfEverything(const TinyModel& model, const TemporaryFolder& folder, bool overlap) {
  EngineConfig config = onCuda(plainConfig(model, folder));
  config.overlap = overlap;
  config.gpuBatchSize = config.numGpuBatches = 2;
  config.kvTiers = {Tier::kGpu, Tier::kCpu, Tier::kDisk, Tier::kCpu};
  config.activationTiers = {Tier::kDisk, Tier::kCpu, Tier::kGpu, Tier::kCpu};
  config.cpuAttention = {0, 1, 0, 0};
  for (TensorSource& tensor : config.tensors) {
    if (tensor.cols == 1) continue;
    tensor.gpuRows = tensor.rows / 3;
    tensor.cpuRows = tensor.rows / 3;
  }
  return config;
}

// Memory and streams are taken before the first step and not after it.
void testNothingIsTakenInTheLoop(Checks& check, const TemporaryFolder& folder) {
  const TinyModel model(Family::kLlama, DataType::kFloat16, folder.file("cuda-loop"));
  Random random(8);
  FakeMachine& machine = freshMachine();
  int64_t allocations = -1, pins = -1, streams = -1, changes = 0;
  runOnce(someOfEverything(model, folder, true), someSequences(model.shape, random, 9), [&](const StepEvent&) {
    if (allocations >= 0)
      changes += allocations != machine.numAllocations || pins != machine.numPins || streams != machine.numStreams;
    allocations = machine.numAllocations;
    pins = machine.numPins;
    streams = machine.numStreams;
  });
  check.that(allocations == 1 && pins > 3, "cuda engine: one arena, host memory pinned");
  check.that(changes == 0, "cuda engine: nothing is taken in the loop");
  checkMachine(check, "cuda engine, loop");
}

// Whatever call fails, the run ends with that error, and everything is given back.
void testFailures(Checks& check, const TemporaryFolder& folder) {
  const TinyModel model(Family::kMixtral, DataType::kFloat16, folder.file("cuda-failures"));
  Random random(12);
  const auto sequences = someSequences(model.shape, random, 6);
  for (const bool overlap : {false, true}) {
    const EngineConfig config = someOfEverything(model, folder, overlap);
    FakeMachine& counted = freshMachine();
    runOnce(config, sequences);
    const int64_t numCalls = counted.numCalls;
    constexpr int64_t kFailures = 48;
    for (int64_t n = 0; n < kFailures; ++n) {
      FakeMachine& machine = freshMachine();
      machine.failAtCall = n * numCalls / kFailures;
      machine.mostDelayMicroseconds = 60;  // what was queued before the failure is still at work after it
      std::string message;
      try {
        runOnce(config, sequences);
      } catch (const Error& error) {
        message = error.what();
      }
      check.that(message.find("planted") != std::string::npos,
                 "cuda engine: failure at call " + std::to_string(fakeMachine().failAtCall) + ", got " + message);
      check.that(fakeMachine().isEmpty(), "cuda engine: everything is given back after a failure");
    }
  }
}

void testShortOfMemory(Checks& check, const TemporaryFolder& folder) {
  const TinyModel model(Family::kOpt, DataType::kFloat32, folder.file("cuda-short"));
  Random random(5);
  const auto sequences = someSequences(model.shape, random, 4);
  EngineConfig config = someOfEverything(model, folder, true);
  freshMachine();
  const RunResult enough = runOnce(config, sequences);
  config.capacityBytes[Tier::kGpu] = enough.peakBytes[Tier::kGpu];
  freshMachine();
  check.that(sameResults(runOnce(config, sequences), enough), "cuda engine: the peak is enough");
  // The plan allows it, but another program has taken the GPU.
  FakeMachine& machine = freshMachine();
  machine.othersBytes = machine.devices.front().totalBytes - (260 << 20);
  std::string message;
  try {
    runOnce(config, sequences);
  } catch (const Error& error) {
    message = error.what();
  }
  check.that(message.find("too few") != std::string::npos && message.find("Fake GPU") != std::string::npos,
             "cuda engine: the shortfall is named, got " + message);
  checkMachine(check, "cuda engine, short of memory");
}

}  // namespace

void testCudaEngine(Checks& check, int numPolicies) {
  const TemporaryFolder folder;
  testPolicies(check, folder, numPolicies);
  testNothingIsTakenInTheLoop(check, folder);
  testFailures(check, folder);
  testShortOfMemory(check, folder);
}

}  // namespace flexplan::test
