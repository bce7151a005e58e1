// The record of who did what when, if wanted.
#pragma once

#include <mutex>
#include <utility>
#include <vector>

#include "engine/block.h"
#include "engine/engine_types.h"
#include "tier/clock.h"

namespace flexplan {

class Trace {
 public:
  explicit Trace(bool enabled) : enabled_(enabled), startSeconds_(nowSeconds()) {}

  // Runs `work` and records it.
  template <typename Work>
  void record(Task task, int64_t block, const Item& item, Work&& work) {
    if (!enabled_) return work();
    const double start = nowSeconds();
    work();
    const std::lock_guard lock(mutex_);
    events_.push_back(
        {task, start - startSeconds_, nowSeconds() - startSeconds_, block, item.step, item.layer, item.batch});
  }
  std::vector<TraceEvent> take() { return std::exchange(events_, {}); }

 private:
  const bool enabled_;
  const double startSeconds_;
  std::mutex mutex_;
  std::vector<TraceEvent> events_;
};

}  // namespace flexplan
