// The KV cache of a block: rows at home on three tiers, and the staging buffers through which rows that are away from
// the device come and go (docs/schedule.md, "Where bytes live" and "Buffers").
#pragma once

#include <cstdint>
#include <vector>

#include "engine/block.h"
#include "engine/transfer.h"

namespace flexplan {

using Budgets = PerTier<std::unique_ptr<MemoryBudget>>;

class KvCache {
 public:
  // Takes memory for the largest of the blocks.
  KvCache(const EngineConfig& config, const std::vector<Block>& blocks, Transfer& transfer, Budgets& budgets);

  // Lays the block's slots out. The rows of the block before are gone.
  void beginBlock(const Block& block);

  // Whether any item of the phase has something to load or store.
  bool loads(Phase phase) const;
  bool stores(Phase phase) const;
  // The items whose staging buffer `item` takes over must have been stored: all up to this index.
  int64_t storesBefore(const Item& item) const;

  // Brings the past rows of slots away from home to the device (disk slots attended by the CPU: to RAM).
  void load(const Item& item, const BatchStep& step);
  // Brings the new rows home.
  void store(const Item& item, const BatchStep& step);

  // Where compute puts the active slot's new rows (device memory).
  std::byte* newRows(const Item& item, const ActiveSlot& active) const;
  // All rows of the active slot, past and new, where device attention reads them.
  std::byte* deviceRows(const Item& item, const ActiveSlot& active) const;
  // The same for a slot attended by the CPU (host memory): its new row has to be put at numPast.
  std::byte* hostRows(const Item& item, const ActiveSlot& active) const;
  bool attendedByCpu(const ActiveSlot& active) const { return !active.isPrompt && slot(active).cpuAttention; }

  DataType dtype() const { return dtype_; }
  int64_t rowBytes() const { return rowBytes_; }
  const PerTier<int64_t>& reservedBytes() const { return reservedBytes_; }

 private:
  struct Place {
    int64_t home = 0;             // of layer 0 row 0 in the home of the slot's tier
    int64_t layerBytes = 0;       // from one layer to the next
    PerPhase<int64_t> staging{};  // in a device staging buffer
    int64_t diskStaging = 0;      // in a disk staging buffer
  };
  struct Layout {
    std::vector<Place> places;
    PerTier<int64_t> homeBytes{};
    PerTier<int64_t> reservedBytes{};
    PerPhase<int64_t> stagingBytes{};  // of one buffer
    int64_t diskStagingBytes = 0;      // of one buffer
  };
  struct NewRows {
    int64_t offset, bytes;  // from the slot's first row
  };
  Layout layOut(const Block& block) const;
  // How the staging memory is divided for an item: in a block that refills, any item may decode.
  Phase stagingPhase(const Item& item) const { return block_->refills ? Phase::kDecode : item.phase(); }
  NewRows newRowsOf(const ActiveSlot& active) const;
  bool isHome(const Slot& slot) const { return slot.kvTier == deviceTier_; }
  const Slot& slot(const ActiveSlot& active) const { return block_->slots[static_cast<size_t>(active.slot)]; }
  const Place& place(const ActiveSlot& active) const { return layout_.places[static_cast<size_t>(active.slot)]; }
  int64_t homeOffset(const Item& item, const ActiveSlot& active) const;
  std::byte* cpuHome(const Item& item, const ActiveSlot& active) const;
  std::byte* staging(const Item& item, const ActiveSlot& active) const;
  std::byte* diskStaging(const Item& item, const ActiveSlot& active) const;

  Transfer& transfer_;
  const Tier deviceTier_;
  const DataType dtype_;
  const int64_t numLayers_;
  const int64_t rowBytes_;
  const Block* block_ = nullptr;
  Layout layout_;
  PerTier<int64_t> reservedBytes_{};
  PerTier<TierBuffer> homes_;
  MemoryBudget::Charge diskCharge_;
  DirectFile disk_;
  TierBuffer staging_;
  TierBuffer diskStaging_;
};

}  // namespace flexplan
