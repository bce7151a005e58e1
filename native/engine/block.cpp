#include "engine/block.h"

#include <algorithm>
#include <limits>

namespace flexplan {

namespace {

// Slots of a GPU batch one after the other, as long as the chunk's prompts have no more tokens than that.
void cutIntoChunks(Block& block, int64_t mostTokens) {
  for (int64_t k = 0; k < block.numGpuBatches; ++k) {
    block.firstChunk.push_back(static_cast<int64_t>(block.chunks.size()));
    int64_t tokens = 0;
    for (int64_t b = k * block.gpuBatchSize; b < (k + 1) * block.gpuBatchSize; ++b) {
      const int64_t more = block.slots[static_cast<size_t>(b)].promptTokens;
      if (b == k * block.gpuBatchSize || (more > 0 && tokens + more > mostTokens)) {
        block.chunks.push_back({k, b, b});
        tokens = 0;
      }
      tokens += more;
      block.chunks.back().endSlot = b + 1;
    }
  }
  block.firstChunk.push_back(static_cast<int64_t>(block.chunks.size()));
}

Block emptyBlock(const EngineConfig& config, int64_t index) {
  Block block;
  block.index = index;
  block.gpuBatchSize = config.gpuBatchSize;
  block.numGpuBatches = config.numGpuBatches;
  block.numSteps = 1;
  block.slots.resize(static_cast<size_t>(config.blockSize()));
  for (size_t s = 0; s < block.slots.size(); ++s) {
    Slot& slot = block.slots[s];
    slot.kvTier = config.kvTiers[s];
    slot.activationTier = config.activationTiers[s];
    slot.cpuAttention = config.device != DeviceKind::kCpu && config.cpuAttention[s] != 0 && slot.kvTier != Tier::kGpu;
  }
  return block;
}

std::vector<Block> zigzagBlocks(const EngineConfig& config, std::span<const Sequence> sequences) {
  std::vector<Block> blocks;
  const auto numSequences = static_cast<int64_t>(sequences.size());
  for (int64_t first = 0; first < numSequences; first += config.blockSize()) {
    Block& block = blocks.emplace_back(emptyBlock(config, static_cast<int64_t>(blocks.size())));
    const int64_t end = std::min(first + config.blockSize(), numSequences);
    for (int64_t sequence = first; sequence < end; ++sequence) {
      const Sequence& from = sequences[static_cast<size_t>(sequence)];
      Slot& slot = block.slots[static_cast<size_t>(sequence - first)];
      slot.sequence = sequence;
      slot.promptTokens = from.promptTokens();
      slot.reservedRows = from.reservedRows();
      block.numSteps = std::max(block.numSteps, from.maxTokens);
    }
    cutIntoChunks(block, config.prefillChunkTokens);
  }
  return blocks;
}

Block diagonalBlock(const EngineConfig& config, std::span<const Sequence> sequences) {
  Block block = emptyBlock(config, 0);
  block.refills = true;
  block.room = roomOf(config, sequences, zigzagBlocks(config, sequences));
  const size_t numSlots = std::min(block.slots.size(), sequences.size());
  for (size_t s = 0; s < numSlots; ++s) block.slots[s].sequence = static_cast<int64_t>(s);
  // Of any two steps one has a token of somebody: who waits enters when all others have left.
  block.numSteps = 0;
  for (const Sequence& sequence : sequences) block.numSteps += 2 * sequence.numSteps();
  cutIntoChunks(block, std::numeric_limits<int64_t>::max());  // a GPU batch is one item, in every step
  return block;
}

}  // namespace

std::vector<Block> makeBlocks(const EngineConfig& config, std::span<const Sequence> sequences) {
  if (config.schedule == Schedule::kZigzag) return zigzagBlocks(config, sequences);
  return sequences.empty() ? std::vector<Block>() : std::vector{diagonalBlock(config, sequences)};
}

int64_t maxLaunchTokens(const std::vector<Block>& blocks, int64_t prefillChunkTokens) {
  int64_t most = 1;
  for (const Block& block : blocks) {
    if (block.refills) most = std::max(most, block.room.launchTokens);
    for (int64_t k = 0; k < block.numGpuBatches; ++k) {
      int64_t tokens = 0, sequences = 0;
      for (const Slot& slot : block.batch(k)) {
        tokens += slot.promptTokens;
        sequences += slot.sequence >= 0;
      }
      most = std::max({most, sequences, std::min(tokens, prefillChunkTokens)});
    }
  }
  return most;
}

void BatchStep::add(const ActiveSlot& slot, std::span<const int32_t> ids) {
  ActiveSlot& added = active.emplace_back(slot);
  added.numTokens = static_cast<int64_t>(ids.size());
  added.firstRow = numTokens();
  for (int64_t n = 0; n < added.numTokens; ++n) positions.push_back(static_cast<int32_t>(added.numPast + n));
  tokenIds.insert(tokenIds.end(), ids.begin(), ids.end());
}

BatchStep BatchStep::piece(int64_t firstRow, int64_t numRows) const {
  BatchStep piece;
  for (const ActiveSlot& slot : active) {
    const int64_t first = std::max(slot.firstRow, firstRow);
    const int64_t count = std::min(slot.firstRow + slot.numTokens, firstRow + numRows) - first;
    if (count <= 0) continue;
    ActiveSlot part = slot;
    part.numPast += first - slot.firstRow;
    piece.add(part, std::span(tokenIds).subspan(static_cast<size_t>(first), static_cast<size_t>(count)));
  }
  return piece;
}

}  // namespace flexplan
