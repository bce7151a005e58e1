// The KV cache of a block: rows at home on three tiers, in pages, and the staging buffers through which rows that are
// away from the device come and go (docs/schedule.md, "Where bytes live" and "Buffers"). Zig-zag: the reserved rows of
// a sequence are one page. Diagonal: pages are taken as a sequence grows, and are free again when it has ended.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/block.h"
#include "engine/transfer.h"

namespace flexplan {

using Budgets = PerTier<std::unique_ptr<MemoryBudget>>;

class KvCache {
 public:
  // Takes memory for the largest of the blocks.
  KvCache(const EngineConfig& config, std::span<const Sequence> sequences, const std::vector<Block>& blocks,
          Transfer& transfer, Budgets& budgets);

  // Lays the block's slots out. The rows of the block before are gone.
  void beginBlock(const Block& block);

  // Diagonal, all on one thread. A sequence enters a slot, without pages; all that the step's sequences need in it; and
  // a sequence has ended.
  void enter(int64_t slot, int64_t sequence);
  void takePages(const BatchStep& step);
  void leave(const ActiveSlot& active);
  int64_t numFreePages(Tier tier) const { return static_cast<int64_t>(freePages_[tier].size()); }

  // Divides the staging buffers of an item among the step's sequences.
  void stage(BatchStep& step) const;

  // Whether any item of the phase has something to load or store.
  bool loads(Phase phase) const;
  bool stores(Phase phase) const;
  // The items whose staging buffer `item` takes over must have been stored: all up to this index.
  int64_t storesBefore(const Item& item) const;

  // Brings the past rows that will be attended, of slots away from home, to the device (disk slots attended by the CPU:
  // to RAM). The rows before them are whatever the buffers held.
  void load(const Item& item, const BatchStep& step);
  // Brings the new rows home.
  void store(const Item& item, const BatchStep& step);

  // Rows of a sequence in one layer are in pages of so many rows.
  int64_t pageRows(const ActiveSlot& active) const { return place(active).pageRows; }
  int64_t numPages(const ActiveSlot& active) const { return pagesOf(place(active), active.numRows()); }
  // A page of the active slot, past and new rows, where device attention reads it.
  std::byte* devicePage(const Item& item, const ActiveSlot& active, int64_t page) const;
  // The same for a slot attended by the CPU (host memory): its new row has to be put at numPast.
  std::byte* hostPage(const Item& item, const ActiveSlot& active, int64_t page) const;
  // Where compute puts the new row of a slot attended by the CPU (device memory).
  std::byte* newAttendedRow(const Item& item, const ActiveSlot& active) const { return staging(item, active); }
  bool attendedByCpu(const ActiveSlot& active) const { return !active.isPrompt && slot(active).cpuAttention; }

  // use(page, rows before it in the page, number of rows) for each page that has any of rows [first, end).
  template <typename Use>
  void forEachPage(const ActiveSlot& active, int64_t first, int64_t end, Use&& use) const {
    const int64_t rowsOfPage = pageRows(active);
    for (int64_t row = first; row < end;) {
      const int64_t before = row % rowsOfPage;
      const int64_t count = std::min(rowsOfPage - before, end - row);
      use(row / rowsOfPage, before, count);
      row += count;
    }
  }

  DataType dtype() const { return dtype_; }
  int64_t rowBytes() const { return rowBytes_; }
  const PerTier<int64_t>& reservedBytes() const { return reservedBytes_; }

 private:
  // Of one sequence. Entries of pages that it has not taken yet are not read, so that loads and stores of its earlier
  // rows may go on while it takes one.
  struct Place {
    int64_t pageRows = 1;
    int64_t pageBytes = 0;       // in one layer; from one layer to the next
    std::vector<int64_t> homes;  // of each page: where layer 0 begins in the home of the slot's tier
    int64_t numTaken = 0;
  };
  struct Sizes {
    PerTier<int64_t> homeBytes{};
    PerTier<int64_t> reservedBytes{};
    PerPhase<int64_t> stagingBytes{};  // of one buffer
    int64_t diskStagingBytes = 0;      // of one buffer
  };
  Sizes sizesOf(const Block& block) const;
  Sizes diagonalSizes(const Block& block) const;
  void raiseStaging(Sizes& sizes, std::span<const Slot> slots, Phase phase) const;
  int64_t pageBytes(Tier tier, int64_t rows) const;
  static int64_t pagesOf(const Place& place, int64_t rows) { return (rows + place.pageRows - 1) / place.pageRows; }
  // How the staging memory is divided for an item: in a block that refills, any item may decode.
  Phase stagingPhase(const Item& item) const { return block_->refills ? Phase::kDecode : item.phase(); }
  // The first row of a step that is not at home yet: of a prompt also those that it shares.
  static int64_t firstNewRow(const ActiveSlot& active) {
    return active.isPrompt && active.sharesPrompt() ? 0 : active.numPast;
  }
  bool isHome(const Slot& slot) const { return slot.kvTier == deviceTier_; }
  const Slot& slot(const ActiveSlot& active) const { return block_->slots[static_cast<size_t>(active.slot)]; }
  const Place& place(const ActiveSlot& active) const { return places_[static_cast<size_t>(active.sequence)]; }
  // The first row that attention of one generated token reads: its window's first, down to the beginning of a chunk. It
  // only grows, so that a row before it is never needed again.
  int64_t firstLoadedRow(const ActiveSlot& active) const;
  int64_t homeOffset(const Item& item, const ActiveSlot& active, int64_t page) const;
  std::byte* staging(const Item& item, const ActiveSlot& active) const;
  std::byte* diskStaging(const Item& item, const ActiveSlot& active, int64_t page) const;

  Transfer& transfer_;
  const Tier deviceTier_;
  const DataType dtype_;
  const int64_t numLayers_;
  const int64_t rowBytes_;
  const int64_t slidingWindow_;  // 0: none
  const std::span<const Sequence> sequences_;
  const Block* block_ = nullptr;
  Sizes sizes_;
  std::vector<Place> places_;                // of the sequences
  PerTier<std::vector<int64_t>> freePages_;  // diagonal
  PerTier<int64_t> reservedBytes_{};
  PerTier<TierBuffer> homes_;
  MemoryBudget::Charge diskCharge_;
  DirectFile disk_;
  TierBuffer staging_;
  TierBuffer diskStaging_;
};

}  // namespace flexplan
