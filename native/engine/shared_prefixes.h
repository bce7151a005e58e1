// Prompts of a step that begin alike (docs/schedule.md, "One step"): the first computes what they share, the others
// copy its KV rows. A prompt of the same item has them in its pages. Those of a prompt of an earlier item are kept
// beside, a layer at a time: its pages may be away from the device by then. Compute thread.
#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "engine/kv_cache.h"

namespace flexplan {

class SharedPrefixes {
 public:
  // Fewer rows are not worth the copies.
  static constexpr int64_t kLeastTokens = 16;

  // Keeps at most `mostRows` rows of a layer, of all prompts together.
  SharedPrefixes(int64_t mostRows, KvCache& kvCache, Device& device);

  // What enters from now on is of the next step, and of this item of it (ascending).
  void beginStep();
  void beginItem(int64_t item);
  // A prompt enters as the active slot that the item's step gets next: its numPast becomes the tokens that it need not
  // compute, at most all but the last. Where scores are wanted of them it computes them all.
  void enter(ActiveSlot& entering, int64_t index, const Sequence& sequence);

  // What the prompts of an item share with those of earlier items, before it is computed, and what later ones share
  // with its own, when it has been.
  void take(const Item& item, const BatchStep& step);
  void keep(const Item& item, const BatchStep& step);
  // What they share with each other, when the new rows of all are stored.
  void copyWithin(const Item& item, const BatchStep& step);

 private:
  using Ids = std::span<const int32_t>;
  // A prompt, as active slot `index` of an item's step.
  struct Prompt {
    Ids ids;
    int64_t item;
    int64_t index;
  };
  struct InOrder {
    bool operator()(const Prompt& a, const Prompt& b) const;
  };
  struct Kept {
    Prompt prompt;
    int64_t numRows;  // its first ones
  };
  static int64_t numAlike(Ids a, Ids b);
  int64_t freeRows() const;
  // Of the prompts of earlier items one that begins with as many of the tokens as any.
  const Prompt* mostAlike(Ids ids) const;
  // Where the rows of kept_[n] begin.
  int64_t firstRow(int64_t n) const;
  std::byte* rows(int64_t first) const { return memory_.data() + first * kvCache_.rowBytes(); }

  const int64_t mostRows_;
  KvCache& kvCache_;
  Device& device_;
  const TierBuffer memory_;  // [mostRows] KV rows
  int64_t item_ = 0;
  std::vector<Prompt> ofItem_;
  std::multiset<Prompt, InOrder> ofEarlierItems_;
  std::vector<Kept> kept_;
};

}  // namespace flexplan
