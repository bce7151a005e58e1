#include "engine/room.h"

#include <algorithm>

#include "engine/block.h"

namespace flexplan {
namespace {

constexpr std::array kTiers = {Tier::kGpu, Tier::kCpu, Tier::kDisk};

int64_t pagesOf(int64_t rows, int64_t pageRows) { return (rows + pageRows - 1) / pageRows; }

// Sums over slots of a zig-zag block.
struct Sums {
  PerTier<int64_t> kvRows{}, hiddenRows{};
  int64_t stagedPromptRows = 0, stagedRows = 0;  // of slots away from the device, at prefill and at decode
  int64_t numAway = 0, numOnDisk = 0;            // slots by where their hidden states are

  void add(const Slot& slot, Tier device) {
    if (slot.sequence < 0) return;
    kvRows[slot.kvTier] += slot.reservedRows;
    hiddenRows[slot.activationTier] += slot.promptTokens;
    numAway += slot.activationTier != device;
    numOnDisk += slot.activationTier == Tier::kDisk;
    if (slot.kvTier == device) return;
    stagedPromptRows += slot.promptTokens;
    stagedRows += slot.cpuAttention ? 1 : slot.reservedRows;
  }
};

Sums sumsOf(std::span<const Slot> slots, Tier device) {
  Sums sums;
  for (const Slot& slot : slots) sums.add(slot, device);
  return sums;
}

void raise(int64_t& most, int64_t value) { most = std::max(most, value); }

// Whole pages of what a block takes at home.
void raiseHomes(Room& room, const Sums& block) {
  for (const Tier tier : kTiers) {
    raise(room.kvPages[tier], block.kvRows[tier] / room.pageRows);
    raise(room.hiddenRows[tier], block.hiddenRows[tier]);
  }
}

void raiseBuffers(Room& room, const Sums& batch) {
  // Three buffers, in the memory of three for decode or of two for prefill.
  raise(room.stagedRows, batch.stagedRows);
  raise(room.stagedDiskPages, batch.kvRows[Tier::kDisk] / room.pageRows);
  raise(room.awayHiddenRows, batch.numAway);
  raise(room.diskHiddenRows, batch.numOnDisk);
}

void raiseBuffersOfChunk(Room& room, const Sums& chunk, Tier device) {
  raise(room.stagedRows, 2 * chunk.stagedPromptRows / 3);
  int64_t away = 0;
  for (const Tier tier : kTiers) away += tier == device ? 0 : chunk.hiddenRows[tier];
  raise(room.awayHiddenRows, away);
  raise(room.diskHiddenRows, chunk.hiddenRows[Tier::kDisk]);
}

// One sequence always fits: pages are whole, and of its prompt no part may be missing.
void raiseForOne(Room& room, const Slot& slot, Tier device) {
  const int64_t pages = pagesOf(slot.reservedRows, room.pageRows);
  raise(room.kvPages[slot.kvTier], pages);
  if (slot.kvTier == device) return;
  raise(room.stagedRows, slot.cpuAttention ? slot.promptTokens : slot.reservedRows);
  if (slot.kvTier == Tier::kDisk) raise(room.stagedDiskPages, pages);
}

}  // namespace

Room roomOf(const EngineConfig& config, std::span<const Sequence> sequences, const std::vector<Block>& zigzag) {
  const Tier device = config.device == DeviceKind::kCpu ? Tier::kCpu : Tier::kGpu;
  Room room;
  for (const Sequence& sequence : sequences) raise(room.pageRows, sequence.reservedRows());
  room.pageRows = std::min(room.pageRows, cpu::kAttentionChunk);
  for (const Block& block : zigzag) {
    raiseHomes(room, sumsOf(block.slots, device));
    for (int64_t k = 0; k < block.numGpuBatches; ++k) raiseBuffers(room, sumsOf(block.batch(k), device));
    for (const PrefillChunk& chunk : block.chunks)
      raiseBuffersOfChunk(room, sumsOf(block.chunk(chunk), device), device);
    for (const Slot& slot : block.slots)
      if (slot.sequence >= 0) raiseForOne(room, slot, device);
  }
  room.launchTokens = maxLaunchTokens(zigzag, config.prefillChunkTokens);
  return room;
}

}  // namespace flexplan
