// The hidden states between schedule layers ("activations" in the policy): the packed tokens of each GPU batch, at home
// on three tiers by slot, and the buffers through which those away from the device come and go. Always in the storage
// type.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/block.h"
#include "engine/kv_cache.h"
#include "engine/transfer.h"

namespace flexplan {

class HiddenStates {
 public:
  // Takes memory for the largest of the blocks.
  HiddenStates(const EngineConfig& config, const std::vector<Block>& blocks, Transfer& transfer, Budgets& budgets);

  void beginBlock(const Block& block);
  // Diagonal: says where the hidden states of a GPU batch will be in its next step; those of the batches before are
  // known.
  void place(BatchStep& step, int64_t batch);

  // Whether any slot is away from the device.
  bool moves() const;
  // The items whose buffer `item` takes over must have been stored: all up to this index.
  int64_t storesBefore(const Item& item) const { return item.index - kBuffers + 1; }

  // At the head only the last token of each slot is loaded, unless its prompt is to be scored.
  void load(const Item& item, const BatchStep& step);
  void store(const Item& item, const BatchStep& step);

  // Consecutive rows of the batch's packed tokens that lie together in device memory.
  struct Run {
    int64_t firstRow, numRows;
    std::byte* data;
  };
  // Where compute of `item` finds its input and leaves its output: rows [firstRow, firstRow + numRows) of the step,
  // numbered from 0.
  std::vector<Run> runs(const Item& item, const BatchStep& step, int64_t firstRow, int64_t numRows) const;
  // The row of each active slot's last token.
  std::vector<const std::byte*> lastRows(const Item& item, const BatchStep& step) const;

  const PerTier<int64_t>& reservedBytes() const { return reservedBytes_; }

 private:
  // Loads run ahead of compute, stores behind it.
  static constexpr int64_t kBuffers = 3;

  struct Layout {
    std::vector<PerTier<int64_t>> chunks;  // where each prefill chunk begins in the home of each tier
    PerTier<int64_t> homeBytes{};
    PerTier<int64_t> reservedBytes{};
    int64_t bufferBytes = 0;
    int64_t diskStagingBytes = 0;
  };
  // Bytes of the step's rows on each tier, and for each active slot where its first row is among them.
  struct Packing {
    PerTier<int64_t> bytes{};
    std::vector<int64_t> offsets;
  };
  Layout layOut(const Block& block) const;
  int64_t awayBytes(const PerTier<int64_t>& bytes) const;
  void makeRoom(Layout& layout, int64_t awayBytes, int64_t diskBytes) const;
  Packing pack(const BatchStep& step) const;
  Tier tierOf(const ActiveSlot& active) const { return block_->slots[static_cast<size_t>(active.slot)].activationTier; }
  bool isHome(Tier tier) const { return tier == deviceTier_; }
  Layout diagonalLayout(const Block& block) const;
  // Zig-zag: later steps have fewer rows, from where the GPU batch's first chunk begins.
  int64_t home(const Item& item, const BatchStep& step, Tier tier) const {
    if (block_->refills) return step.hiddenHome[tier];
    const int64_t chunk = item.step == 0 ? item.batch : block_->firstItem(0, item.batch);
    return layout_.chunks[static_cast<size_t>(chunk)][tier];
  }
  std::byte* diskStaging(const Item& item) const;
  std::byte* awayBuffer(const Item& item) const;
  std::byte* locate(const Item& item, const BatchStep& step, const Packing& packing, Tier tier, int64_t offset) const;
  bool loadsLastOnly(const Item& item, const ActiveSlot& active) const;
  void addDiskReads(const Item& item, const BatchStep& step, const Packing& packing, IoBatch& reads);
  std::vector<CopyPiece> loadPieces(const Item& item, const BatchStep& step, const Packing& packing, Tier from) const;

  Transfer& transfer_;
  const Tier deviceTier_;
  const int64_t rowBytes_;
  const int64_t headLayer_;
  const Block* block_ = nullptr;
  Layout layout_;
  PerTier<int64_t> placedEnd_{};  // diagonal: of the GPU batches of the next step so far
  PerTier<int64_t> reservedBytes_{};
  PerTier<TierBuffer> homes_;
  MemoryBudget::Charge diskCharge_;
  DirectFile disk_;
  TierBuffer buffers_;
  TierBuffer diskStaging_;
};

}  // namespace flexplan
