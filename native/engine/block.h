// A block: the sequences that go through the model together, and what each GPU batch of it computes in a step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine_types.h"

namespace flexplan {

struct Slot {
  int64_t sequence = -1;  // -1: nobody's
  int64_t promptTokens = 0;
  int64_t reservedRows = 0;  // of KV cache, per layer
  Tier kvTier = Tier::kGpu;
  Tier activationTier = Tier::kGpu;
  bool cpuAttention = false;  // decode attention on the CPU beside the device
  bool scorePrompt = false;
};

struct Block {
  int64_t index = 0;
  int64_t numGpuBatches = 0;
  int64_t gpuBatchSize = 0;
  int64_t numSteps = 0;  // at most
  std::vector<Slot> slots;

  std::span<const Slot> batch(int64_t k) const {
    return std::span(slots).subspan(static_cast<size_t>(k * gpuBatchSize), static_cast<size_t>(gpuBatchSize));
  }
};

// The sequences in order, blockSize at a time.
std::vector<Block> makeBlocks(const EngineConfig& config, std::span<const Sequence> sequences);

// One live sequence in a step of its batch. Its tokens are rows [firstRow, firstRow + numTokens) of the batch's packed
// tokens.
struct ActiveSlot {
  int64_t slot;  // in the block
  int64_t numTokens;
  int64_t numPast;
  int64_t firstRow;

  int64_t lastRow() const { return firstRow + numTokens - 1; }
};

// What one GPU batch computes in one step: the same through all layers.
struct BatchStep {
  std::vector<ActiveSlot> active;
  std::vector<int32_t> tokenIds;
  std::vector<int32_t> positions;

  int64_t numTokens() const { return static_cast<int64_t>(tokenIds.size()); }
  bool empty() const { return active.empty(); }
  void add(int64_t slot, std::span<const int32_t> ids, int64_t numPast);
};

// One square of the schedule.
struct Item {
  int64_t step, layer, batch;
  int64_t index;  // in the order of the block

  Phase phase() const { return step == 0 ? Phase::kPrefill : Phase::kDecode; }
};

}  // namespace flexplan
