#include "engine/admission.h"

#include <algorithm>

namespace flexplan {

// The rows of all grow, so there are most of them in the last step of somebody. From the last of these back, sequences
// come in. With r rows beyond q whole pages at `step`, one needs another page whenever the steps since have filled one:
// it is enough to count how many have which r.
int64_t mostPages(std::vector<Stay> stays, int64_t step, int64_t pageRows) {
  std::ranges::sort(stays, [](const Stay& a, const Stay& b) { return a.lastStep > b.lastStep; });
  std::vector<int64_t> counts(static_cast<size_t>(pageRows));
  int64_t wholePages = 0, most = 0;
  for (size_t n = 0; n < stays.size() && stays[n].lastStep >= step; ++n) {
    const int64_t roundedUp = stays[n].rowsAt(step) + pageRows - 1;
    wholePages += roundedUp / pageRows;
    ++counts[static_cast<size_t>(roundedUp % pageRows)];
    if (n + 1 < stays.size() && stays[n + 1].lastStep == stays[n].lastStep) continue;
    int64_t pages = wholePages;
    for (int64_t r = 0; r < pageRows; ++r)
      pages += counts[static_cast<size_t>(r)] * ((r + stays[n].lastStep - step) / pageRows);
    most = std::max(most, pages);
  }
  return most;
}

Admission::Admission(const Block& block, Tier deviceTier)
    : block_(block),
      deviceTier_(deviceTier),
      stays_(block.slots.size()),
      tokens_(static_cast<size_t>(block.numGpuBatches)) {}

void Admission::prepareStep(int64_t step) {
  step_ = step;
  std::ranges::fill(tokens_, Tokens());
  for (size_t s = 0; s < stays_.size(); ++s)
    if (stays_[s]) ++tokens(static_cast<int64_t>(s)).of[block_.slots[s].activationTier];
}

Stay Admission::stayOf(const Sequence& sequence) const {
  return {sequence.promptTokens(), step_, step_ + sequence.numSteps() - 1};
}

bool Admission::hasRoom(int64_t slot, const Sequence& sequence) const {
  return hasRoomForHiddenStates(slot, sequence.promptTokens()) && hasRoomAtHome(slot, stayOf(sequence)) &&
         hasRoomForStaging(slot, stayOf(sequence));
}

void Admission::enter(int64_t slot, const Sequence& sequence) {
  stays_[static_cast<size_t>(slot)] = stayOf(sequence);
  tokens(slot).of[this->slot(slot).activationTier] += sequence.promptTokens();
  ++tokens(slot).numEntered;
}

// Nobody leaves in the step that he enters: the tokens are those of a sequence that would have gone on.
void Admission::leave(int64_t slot) {
  stays_[static_cast<size_t>(slot)].reset();
  --tokens(slot).of[this->slot(slot).activationTier];
}

bool Admission::areAlike(int64_t a, int64_t b) const {
  return slot(a).kvTier == slot(b).kvTier && slot(a).cpuAttention == slot(b).cpuAttention &&
         slot(a).activationTier == slot(b).activationTier;
}

bool Admission::hasRoomForHiddenStates(int64_t slot, int64_t promptTokens) const {
  const Room& room = block_.room;
  const Tokens& batch = tokens(slot);
  const Tier tier = this->slot(slot).activationTier;
  if (batch.numEntered > 0 && batch.total() + promptTokens > room.launchTokens) return false;
  int64_t atHome = promptTokens;
  for (const Tokens& other : tokens_) atHome += other.of[tier];
  if (atHome > room.hiddenRows[tier]) return false;
  if (tier == Tier::kDisk && batch.of[tier] + promptTokens > room.diskHiddenRows) return false;
  return tier == deviceTier_ || batch.total() - batch.of[deviceTier_] + promptTokens <= room.awayHiddenRows;
}

template <typename Takes>
std::vector<Stay> Admission::staysWhere(int64_t first, int64_t end, Takes&& takes) const {
  std::vector<Stay> stays;
  for (int64_t s = first; s < end; ++s)
    if (!isFree(s) && takes(slot(s))) stays.push_back(*stays_[static_cast<size_t>(s)]);
  return stays;
}

bool Admission::hasRoomAtHome(int64_t slot, const Stay& entering) const {
  const Tier tier = this->slot(slot).kvTier;
  auto stays = staysWhere(0, static_cast<int64_t>(stays_.size()), [&](const Slot& s) { return s.kvTier == tier; });
  stays.push_back(entering);
  return mostPages(std::move(stays), step_, block_.room.pageRows) <= block_.room.kvPages[tier];
}

bool Admission::hasRoomForStaging(int64_t slot, const Stay& entering) const {
  const Slot& at = this->slot(slot);
  if (at.kvTier == deviceTier_) return true;
  const Room& room = block_.room;
  const int64_t first = slot / block_.gpuBatchSize * block_.gpuBatchSize;
  const int64_t end = first + block_.gpuBatchSize;
  if (at.kvTier == Tier::kDisk) {
    auto onDisk = staysWhere(first, end, [](const Slot& s) { return s.kvTier == Tier::kDisk; });
    onDisk.push_back(entering);
    if (mostPages(std::move(onDisk), step_, room.pageRows) > room.stagedDiskPages) return false;
  }
  if (deviceTier_ == Tier::kCpu) return true;
  auto moved = staysWhere(first, end, [&](const Slot& s) { return s.kvTier != deviceTier_ && !s.cpuAttention; });
  if (!at.cpuAttention) moved.push_back(entering);
  const int64_t attended = attendedRows(first, end) + (at.cpuAttention ? entering.promptTokens : 0);
  return mostPages(std::move(moved), step_, 1) + attended <= room.stagedRows;
}

// Rows of slots that are attended by the CPU pass through the device's memory: a whole prompt, then one at a time.
int64_t Admission::attendedRows(int64_t first, int64_t end) const {
  int64_t rows = 0;
  for (int64_t s = first; s < end; ++s)
    if (!isFree(s) && slot(s).cpuAttention)
      rows += stays_[static_cast<size_t>(s)]->firstStep == step_ ? stays_[static_cast<size_t>(s)]->promptTokens : 1;
  return rows;
}

}  // namespace flexplan
