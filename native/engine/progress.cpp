#include "engine/progress.h"

#include "core/relax.h"

namespace flexplan {
namespace {

// A few microseconds: longer would take time from the threads that compute.
constexpr int kSpins = 100;

}  // namespace

void Progress::publish(int64_t value) {
  // Sequentially consistent with the waiter's registration: either it sees the value or it is seen waiting.
  value_.store(value);
  if (numWaiting_.load() == 0) return;
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

void Progress::waitFor(int64_t value) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (stopped_.load(std::memory_order_acquire)) throw Stopped();
    if (value_.load(std::memory_order_acquire) >= value) return;
    relax();
  }
  std::unique_lock lock(mutex_);
  ++numWaiting_;
  changed_.wait(lock, [&] { return value_.load() >= value || stopped_.load(); });
  --numWaiting_;
  if (stopped_.load()) throw Stopped();
}

void Progress::stop() {
  const std::lock_guard lock(mutex_);
  stopped_.store(true);
  changed_.notify_all();
}

}  // namespace flexplan
