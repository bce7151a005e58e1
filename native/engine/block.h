// A block: the sequences that go through the model together, and what each GPU batch of it computes in a step.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine_types.h"
#include "engine/room.h"

namespace flexplan {

struct Slot {
  int64_t sequence = -1;  // -1: nobody's, ever; diagonal: any number, sequences come and go
  int64_t promptTokens = 0;  // diagonal: none
  int64_t reservedRows = 0;  // of KV cache, per layer; diagonal: none
  Tier kvTier = Tier::kGpu;
  Tier activationTier = Tier::kGpu;
  bool cpuAttention = false;  // decode attention on the CPU beside the device
};

// Consecutive slots of one GPU batch whose prompts go through the model together.
struct PrefillChunk {
  int64_t batch;
  int64_t firstSlot, endSlot;
};

struct Block {
  int64_t index = 0;
  int64_t numGpuBatches = 0;
  int64_t gpuBatchSize = 0;
  int64_t numSteps = 0;  // at most
  // Diagonal: waiting sequences enter free slots in every step, as far as there is room for them.
  bool refills = false;
  Room room;
  std::vector<Slot> slots;
  std::vector<PrefillChunk> chunks;  // of all slots, in order
  std::vector<int64_t> firstChunk;   // of each GPU batch, and behind the last

  // What step 0 computes one after the other are chunks, later steps: GPU batches.
  int64_t numItems(int64_t step) const { return step == 0 ? static_cast<int64_t>(chunks.size()) : numGpuBatches; }
  // Of the step's items those of GPU batch k are [firstItem(step, k), firstItem(step, k + 1)).
  int64_t firstItem(int64_t step, int64_t k) const { return step == 0 ? firstChunk[static_cast<size_t>(k)] : k; }
  std::span<const Slot> chunk(const PrefillChunk& chunk) const {
    return std::span(slots).subspan(static_cast<size_t>(chunk.firstSlot),
                                    static_cast<size_t>(chunk.endSlot - chunk.firstSlot));
  }
  std::span<const Slot> batch(int64_t k) const {
    return std::span(slots).subspan(static_cast<size_t>(k * gpuBatchSize), static_cast<size_t>(gpuBatchSize));
  }
};

// Zig-zag: the sequences in order, blockSize at a time. Diagonal: one block, in the memory that those would take.
std::vector<Block> makeBlocks(const EngineConfig& config, std::span<const Sequence> sequences);

// Most tokens of a launch: a chunk of a GPU batch's prompts, or one token of each of its sequences.
int64_t maxLaunchTokens(const std::vector<Block>& blocks, int64_t prefillChunkTokens);

// One live sequence in a step of its batch. Its tokens are rows [firstRow, firstRow + numTokens) of the batch's packed
// tokens.
struct ActiveSlot {
  int64_t slot = 0;  // in the block
  int64_t sequence = 0;
  int64_t numTokens = 0;
  int64_t numPast = 0;
  int64_t firstRow = 0;
  bool isPrompt = false;  // tokens of its prompt, else one that was generated
  bool scorePrompt = false;
  // A prompt that begins like another: the first numPast rows of its KV cache are those of active[leader], or of that
  // prefix of SharedPrefixes.
  int64_t leader = -1;
  int64_t prefix = -1;
  // Where its KV rows begin in a staging buffer of the device, and of the disk: bytes.
  int64_t staging = 0, diskStaging = 0;

  // Of KV cache, per layer, when the step is done.
  int64_t numRows() const { return numPast + numTokens; }
  int64_t lastRow() const { return firstRow + numTokens - 1; }
  bool sharesPrompt() const { return leader >= 0 || prefix >= 0; }
};

// What one GPU batch computes in one step: the same through all layers.
struct BatchStep {
  std::vector<ActiveSlot> active;
  std::vector<int32_t> tokenIds;
  std::vector<int32_t> positions;
  PerTier<int64_t> hiddenHome{};  // where its hidden states begin on each tier: bytes

  int64_t numTokens() const { return static_cast<int64_t>(tokenIds.size()); }
  bool empty() const { return active.empty(); }
  // Prefill when any prompt is in it: those that enter are the last.
  Phase phase() const { return !empty() && active.back().isPrompt ? Phase::kPrefill : Phase::kDecode; }
  void add(const ActiveSlot& slot, std::span<const int32_t> ids);
  // Rows [firstRow, firstRow + numRows) as a step of their own: the tokens before them are past.
  BatchStep piece(int64_t firstRow, int64_t numRows) const;
};

// One square of the schedule.
struct Item {
  int64_t step, layer;
  int64_t batch;  // GPU batch; at step 0 the chunk
  int64_t index;  // in the order of the block

  Phase phase() const { return step == 0 ? Phase::kPrefill : Phase::kDecode; }
};

}  // namespace flexplan
