#include "engine/block.h"

#include <algorithm>

namespace flexplan {

std::vector<Block> makeBlocks(const EngineConfig& config, std::span<const Sequence> sequences) {
  std::vector<Block> blocks;
  const auto numSequences = static_cast<int64_t>(sequences.size());
  for (int64_t first = 0; first < numSequences; first += config.blockSize()) {
    Block block;
    block.index = static_cast<int64_t>(blocks.size());
    block.gpuBatchSize = config.gpuBatchSize;
    block.numGpuBatches = config.numGpuBatches;
    block.numSteps = 1;
    block.slots.resize(static_cast<size_t>(config.blockSize()));
    for (size_t s = 0; s < block.slots.size(); ++s) {
      Slot& slot = block.slots[s];
      slot.kvTier = config.kvTiers[s];
      slot.activationTier = config.activationTiers[s];
      slot.cpuAttention = config.device != DeviceKind::kCpu && config.cpuAttention[s] != 0 && slot.kvTier != Tier::kGpu;
      const int64_t sequence = first + static_cast<int64_t>(s);
      if (sequence >= numSequences) continue;
      const Sequence& from = sequences[static_cast<size_t>(sequence)];
      slot.sequence = sequence;
      slot.promptTokens = from.promptTokens();
      slot.reservedRows = from.reservedRows();
      slot.scorePrompt = from.scorePrompt;
      block.numSteps = std::max(block.numSteps, from.maxTokens);
    }
    blocks.push_back(std::move(block));
  }
  return blocks;
}

void BatchStep::add(int64_t slot, std::span<const int32_t> ids, int64_t numPast) {
  active.push_back({slot, static_cast<int64_t>(ids.size()), numPast, numTokens()});
  for (const int32_t id : ids) {
    tokenIds.push_back(id);
    positions.push_back(
        static_cast<int32_t>(numPast + (static_cast<int64_t>(tokenIds.size()) - 1 - active.back().firstRow)));
  }
}

}  // namespace flexplan
