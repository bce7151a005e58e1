#include "engine/shared_prefixes.h"

#include <algorithm>
#include <iterator>
#include <numeric>

namespace flexplan {

SharedPrefixes::SharedPrefixes(int64_t mostRows, KvCache& kvCache, Device& device)
    : mostRows_(mostRows),
      kvCache_(kvCache),
      device_(device),
      memory_(device.allocate(mostRows * kvCache.rowBytes(), "shared prefixes")) {}

void SharedPrefixes::beginStep() {
  ofItem_.clear();
  ofEarlierItems_.clear();
  kept_.clear();
}

void SharedPrefixes::beginItem(int64_t item) {
  item_ = item;
  ofEarlierItems_.insert(ofItem_.begin(), ofItem_.end());
  ofItem_.clear();
}

void SharedPrefixes::enter(ActiveSlot& entering, int64_t index, const Sequence& sequence) {
  const Ids ids = sequence.promptIds;
  ofItem_.push_back({ids, item_, index});
  if (sequence.scorePrompt) return;
  const Ids sharable = ids.first(ids.size() - 1);
  for (const Prompt& prompt : std::span(ofItem_).first(ofItem_.size() - 1)) {
    const int64_t shared = numAlike(sharable, prompt.ids);
    if (shared < kLeastTokens || shared <= entering.numPast) continue;
    entering.numPast = shared;
    entering.leader = prompt.index;
  }
  // The nearest is the cheapest: others have to offer more.
  const auto takesKept = [&](int64_t n, int64_t shared) {
    if (shared < entering.numPast + kLeastTokens) return;
    entering.numPast = shared;
    entering.leader = -1;
    entering.prefix = n;
  };
  for (size_t n = 0; n < kept_.size(); ++n)
    takesKept(static_cast<int64_t>(n),
              std::min(numAlike(sharable, kept_[n].prompt.ids), kept_[n].numRows + freeRows()));
  if (const Prompt* const prompt = mostAlike(sharable)) {
    const auto added = static_cast<int64_t>(kept_.size());
    takesKept(added, std::min(numAlike(sharable, prompt->ids), freeRows()));
    if (entering.prefix == added) kept_.push_back({*prompt, 0});
  }
  if (entering.prefix < 0) return;
  Kept& kept = kept_[static_cast<size_t>(entering.prefix)];
  kept.numRows = std::max(kept.numRows, entering.numPast);
}

void SharedPrefixes::take(const Item& item, const BatchStep& step) {
  std::vector<CopyPiece> pieces;
  for (const ActiveSlot& active : step.active) {
    if (active.prefix < 0) continue;
    int64_t from = firstRow(active.prefix);
    kvCache_.forEachPage(active, 0, active.numPast, [&](int64_t page, int64_t, int64_t count) {
      pieces.push_back({kvCache_.devicePage(item, active, page), rows(from), count * kvCache_.rowBytes()});
      from += count;
    });
  }
  if (!pieces.empty()) device_.copy(pieces);
}

void SharedPrefixes::keep(const Item& item, const BatchStep& step) {
  std::vector<CopyPiece> pieces;
  int64_t to = 0;
  for (const auto& [prompt, numRows] : kept_) {
    const int64_t end = to + numRows;
    if (prompt.item == item.batch) {
      const ActiveSlot& active = step.active[static_cast<size_t>(prompt.index)];
      kvCache_.forEachPage(active, 0, numRows, [&](int64_t page, int64_t, int64_t count) {
        pieces.push_back({rows(to), kvCache_.devicePage(item, active, page), count * kvCache_.rowBytes()});
        to += count;
      });
    }
    to = end;
  }
  if (!pieces.empty()) device_.copy(pieces);
}

// In order: a leader may have rows of its own leader. Their pages are cut alike, or each has one.
void SharedPrefixes::copyWithin(const Item& item, const BatchStep& step) {
  for (const ActiveSlot& active : step.active) {
    if (active.leader < 0) continue;
    const ActiveSlot& leader = step.active[static_cast<size_t>(active.leader)];
    std::vector<CopyPiece> pieces;
    kvCache_.forEachPage(active, 0, active.numPast, [&](int64_t page, int64_t, int64_t count) {
      pieces.push_back({kvCache_.devicePage(item, active, page), kvCache_.devicePage(item, leader, page),
                        count * kvCache_.rowBytes()});
    });
    device_.copy(pieces);
  }
}

bool SharedPrefixes::InOrder::operator()(const Prompt& a, const Prompt& b) const {
  return std::ranges::lexicographical_compare(a.ids, b.ids);
}

int64_t SharedPrefixes::numAlike(Ids a, Ids b) { return std::ranges::mismatch(a, b).in1 - a.begin(); }

int64_t SharedPrefixes::freeRows() const {
  return mostRows_ - firstRow(static_cast<int64_t>(kept_.size()));
}

// In lexicographic order it is a neighbour.
const SharedPrefixes::Prompt* SharedPrefixes::mostAlike(Ids ids) const {
  const auto next = ofEarlierItems_.lower_bound({ids, 0, 0});
  const Prompt* most = next == ofEarlierItems_.end() ? nullptr : &*next;
  if (next == ofEarlierItems_.begin()) return most;
  const Prompt& last = *std::prev(next);
  return most == nullptr || numAlike(ids, last.ids) > numAlike(ids, most->ids) ? &last : most;
}

int64_t SharedPrefixes::firstRow(int64_t n) const {
  return std::accumulate(kept_.begin(), kept_.begin() + n, int64_t{0},
                         [](int64_t sum, const Kept& kept) { return sum + kept.numRows; });
}

}  // namespace flexplan
