// One loaded model under one policy. No process globals, no threads but its own; nothing here knows JavaScript.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "engine/run.h"

namespace flexplan {

class Engine {
 public:
  // Throws Error kBadInput.
  explicit Engine(EngineConfig config);
  ~Engine();

  // Takes the device and loads the weights. Returns their bytes on each tier, vectors included.
  // Throws Error kBadInput, kNoDevice, kOutOfMemory, kNoDiskSpace.
  PerTier<int64_t> open();
  // A cancellation from here on counts for the next run, also when it comes before run() has got that far on its thread.
  void announceRun();
  // Runs all sequences; onStep is called on the calling thread. One run at a time, after open().
  // Throws Error; a cancelled run returns what there is.
  RunResult run(std::span<const Sequence> sequences, const StepCallback& onStep);

  // From any thread, during a run or after its announcement (else they do nothing).
  void cancelSequence(int64_t sequence);
  void cancel();

 private:
  // Everything that open() takes, in the order in which it depends on what came before.
  struct Loaded;

  const EngineConfig config_;
  std::unique_ptr<Loaded> loaded_;
  std::mutex mutex_;
  Run* current_ = nullptr;
  // Cancellations that wait for the announced run.
  struct Announced {
    bool cancelled = false;
    std::vector<int64_t> cancelledSequences;
  };
  std::optional<Announced> announced_;
};

}  // namespace flexplan
