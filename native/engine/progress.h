// How tasks wait for each other: each publishes how far it has come.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <mutex>

namespace flexplan {

// Thrown out of a wait when the run is stopped, by an error elsewhere or by the user.
struct Stopped {};

// A counter that only grows.
class Progress {
 public:
  // A value that no wait exceeds: nothing of this task is waited for any more.
  static constexpr int64_t kComplete = std::numeric_limits<int64_t>::max();

  void publish(int64_t value);
  int64_t value() const { return value_.load(std::memory_order_acquire); }
  // Returns once `value` has been published. Throws Stopped after stop().
  void waitFor(int64_t value);
  void stop();

 private:
  std::atomic<int64_t> value_{0};
  std::atomic<int> numWaiting_{0};
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace flexplan
