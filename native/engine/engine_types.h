// What goes into the engine and what comes out: the documents of src/engine/native-addon.ts, as native code holds them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "model/device.h"
#include "model/model_shape.h"
#include "tier/tiers.h"

namespace flexplan {

// Zig-zag: blocks one after the other. Diagonal: one block, into whose free slots waiting sequences enter.
enum class Schedule : uint8_t { kZigzag, kDiagonal };

struct EngineConfig {
  DeviceKind device;
  int numThreads;  // 0: one per CPU
  PerTier<int64_t> capacityBytes;
  double cpuToGpuRate, gpuToCpuRate;  // bytes per second, emulated device only
  std::string spillDirectory;
  std::string quantizationCache;  // file for 4-bit weights that outlives the engine; "": none
  ModelShape model;
  std::vector<TensorSource> tensors;
  Schedule schedule;
  int64_t gpuBatchSize, numGpuBatches;
  int64_t prefillChunkTokens;
  int weightBits, kvCacheBits;
  double sparseValueFraction = 1;  // see cpu::AttentionShape
  bool overlap;
  // Per slot of a block.
  std::vector<Tier> kvTiers, activationTiers;
  std::vector<uint8_t> cpuAttention;
  bool trace;

  int64_t blockSize() const { return gpuBatchSize * numGpuBatches; }
  // Whether the CPU attends to sequences beside the device.
  bool attendsOnCpu() const {
    return device != DeviceKind::kCpu && std::ranges::any_of(cpuAttention, [](uint8_t flag) { return flag != 0; });
  }
};

struct Sequence {
  std::vector<int32_t> promptIds;
  int64_t maxTokens;
  double temperature;
  double topP;
  uint64_t seed;
  std::vector<int32_t> stopIds;
  int64_t logitsSteps;
  bool scorePrompt;

  int64_t promptTokens() const { return static_cast<int64_t>(promptIds.size()); }
  // That it takes part in, at most.
  int64_t numSteps() const { return maxTokens > 0 ? maxTokens : 1; }
  // The last generated token is never fed back, so it needs no KV row.
  int64_t reservedRows() const { return promptTokens() + numSteps() - 1; }
};

enum class FinishReason : uint8_t { kStop, kLength, kCancelled };
constexpr const char* finishReasonName(FinishReason reason) {
  return reason == FinishReason::kStop ? "stop" : reason == FinishReason::kLength ? "length" : "cancelled";
}

struct SequenceResult {
  std::vector<int32_t> tokenIds;
  FinishReason finishReason = FinishReason::kCancelled;
  std::vector<std::vector<float>> logits;
  std::vector<float> promptLogProbs;
};

struct StepEvent {
  struct Finished {
    int32_t sequence;
    FinishReason reason;
  };
  int64_t block, step;
  std::vector<int32_t> sequences, tokenIds;
  std::vector<Finished> finished;
};

enum class Task : uint8_t { kLoadWeights, kLoadKvCache, kLoadActivations, kCompute, kStoreKvCache, kStoreActivations };
constexpr std::array<const char*, 6> kTaskNames = {"loadWeights", "loadKvCache",  "loadActivations",
                                                   "compute",     "storeKvCache", "storeActivations"};

struct TraceEvent {
  Task task;
  double startSeconds, endSeconds;  // since the run began
  int64_t block, step, layer, gpuBatch;
};

struct RunResult {
  std::vector<SequenceResult> sequences;
  int64_t numBlocks = 0;
  int64_t sharedPrefixTokens = 0;  // prompt tokens not computed, because another prompt of the step begins with them
  PerPhase<double> seconds{};
  PerPhase<double> computeSeconds{};
  PerPhase<double> cpuAttentionSeconds{};
  PerPhase<PerLink<double>> linkSeconds{};
  PerPhase<PerLink<int64_t>> linkBytes{};
  PerTier<int64_t> peakBytes{};
  // Reserved for the largest block.
  PerTier<int64_t> kvCacheBytes{};
  PerTier<int64_t> activationBytes{};
  std::vector<TraceEvent> trace;
};

using StepCallback = std::function<void(const StepEvent&)>;

}  // namespace flexplan
