// The memory of the diagonal schedule: that of the zig-zag schedule's blocks, shared by whoever is in a slot
// (docs/schedule.md, "The diagonal schedule").
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine_types.h"

namespace flexplan {

struct Block;

// What sequences may take together. Each sequence alone fits, at least in the slot that is its own in the zig-zag
// schedule.
struct Room {
  // KV rows of a page in each layer. More than one page of a sequence: whole chunks of attention.
  int64_t pageRows = 1;
  PerTier<int64_t> kvPages{};  // at home, all layers of each
  // In one staging buffer, of one GPU batch: KV rows of slots away from the device, pages of slots on disk.
  int64_t stagedRows = 0, stagedDiskPages = 0;
  PerTier<int64_t> hiddenRows{};  // hidden states at home
  // In one buffer, of one GPU batch: hidden states away from the device, of these on disk.
  int64_t awayHiddenRows = 0, diskHiddenRows = 0;
  int64_t launchTokens = 1;
};

// zigzag: the blocks of the zig-zag schedule.
Room roomOf(const EngineConfig& config, std::span<const Sequence> sequences, const std::vector<Block>& zigzag);

}  // namespace flexplan
