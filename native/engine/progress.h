// How tasks wait for each other: each publishes how far it has come.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <mutex>

namespace flexplan {

// Thrown out of a wait when the run is stopped, by an error elsewhere or by the user.
struct Stopped {};

// The device's marks of the last few things computed, by number. Noted before the thing's number is published; whoever
// comes so late that another has taken its place awaits more than it had to.
class Marks {
 public:
  void note(int64_t number, int64_t mark) { place(number).store(mark, std::memory_order_relaxed); }
  int64_t of(int64_t number) { return place(number).load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t>& place(int64_t number) { return marks_[static_cast<size_t>(number) % marks_.size()]; }
  std::array<std::atomic<int64_t>, 8> marks_{};
};

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
