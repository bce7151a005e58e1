// Items of different sizes, laid end to end and cut into equal ranges that threads share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace flexplan {

// use(item, itemBegin, first, end) for each item with a part in [begin, end): it begins at itemBegin, and its own
// [first, end) lie there.
template <typename Item, typename SizeOf, typename Use>
void forEachPart(std::span<const Item> items, int64_t begin, int64_t end, SizeOf&& sizeOf, Use&& use) {
  int64_t itemBegin = 0;
  for (const Item& item : items) {
    if (itemBegin >= end) return;
    const int64_t size = sizeOf(item);
    const int64_t first = std::max<int64_t>(0, begin - itemBegin), last = std::min(size, end - itemBegin);
    if (first < last) use(item, itemBegin, first, last);
    itemBegin += size;
  }
}

}  // namespace flexplan
