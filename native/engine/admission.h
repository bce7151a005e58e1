// Who may enter a free slot of a diagonal block: a waiting sequence for whom there is room at every later step, should
// nobody stop before their token limit. So nobody is ever sent away. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/block.h"

namespace flexplan {

// A sequence that is in the steps from `firstStep` to `lastStep`, with one more row in each: first those of its prompt.
struct Stay {
  int64_t promptTokens;
  int64_t firstStep, lastStep;

  int64_t rowsAt(int64_t step) const { return promptTokens + step - firstStep; }
};

// The most pages of `pageRows` rows that the stays, begun by then, need at once in any step from `step` on.
int64_t mostPages(std::vector<Stay> stays, int64_t step, int64_t pageRows);

class Admission {
 public:
  // `block` must outlive it.
  Admission(const Block& block, Tier deviceTier);

  // The step that is prepared from now on; sequences that are in a slot stay there until they leave.
  void prepareStep(int64_t step);
  // Whether the sequence may enter the slot, which is free.
  bool hasRoom(int64_t slot, const Sequence& sequence) const;
  void enter(int64_t slot, const Sequence& sequence);
  void leave(int64_t slot);
  bool isFree(int64_t slot) const { return !stays_[static_cast<size_t>(slot)]; }
  // Whether the slot offers what the other one does.
  bool areAlike(int64_t slot, int64_t other) const;

 private:
  // Of one GPU batch in the step that is prepared: tokens by where the hidden states are.
  struct Tokens {
    PerTier<int64_t> of{};
    int64_t numEntered = 0;
    int64_t total() const { return of[Tier::kGpu] + of[Tier::kCpu] + of[Tier::kDisk]; }
  };
  const Slot& slot(int64_t index) const { return block_.slots[static_cast<size_t>(index)]; }
  const Tokens& tokens(int64_t slot) const { return tokens_[static_cast<size_t>(slot / block_.gpuBatchSize)]; }
  Tokens& tokens(int64_t slot) { return tokens_[static_cast<size_t>(slot / block_.gpuBatchSize)]; }
  Stay stayOf(const Sequence& sequence) const;
  template <typename Takes>
  std::vector<Stay> staysWhere(int64_t first, int64_t end, Takes&& takes) const;
  bool hasRoomForHiddenStates(int64_t slot, int64_t promptTokens) const;
  bool hasRoomAtHome(int64_t slot, const Stay& entering) const;
  bool hasRoomForStaging(int64_t slot, const Stay& entering) const;
  int64_t attendedRows(int64_t first, int64_t end) const;

  const Block& block_;
  const Tier deviceTier_;
  int64_t step_ = 0;  // that is prepared
  std::vector<std::optional<Stay>> stays_;  // of the slots
  std::vector<Tokens> tokens_;              // of the GPU batches
};

}  // namespace flexplan
