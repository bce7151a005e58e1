// The user's wish to end a run, or some of its sequences, early. Outlives the run, so that it may be uttered before the
// run begins.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace flexplan {

// All from any thread.
class Cancellation {
 public:
  explicit Cancellation(size_t numSequences) : sequences_(numSequences) {}

  void cancel() { all_.store(true); }
  // Numbers that no sequence has are ignored.
  void cancelSequence(int64_t sequence) {
    if (sequence >= 0 && static_cast<size_t>(sequence) < sequences_.size())
      sequences_[static_cast<size_t>(sequence)].store(true);
  }
  bool isCancelled() const { return all_.load(); }
  bool isCancelled(int64_t sequence) const { return sequences_[static_cast<size_t>(sequence)].load(); }

 private:
  std::atomic<bool> all_{false};
  std::vector<std::atomic<bool>> sequences_;
};

}  // namespace flexplan
