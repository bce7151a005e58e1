// One loaded model under one policy. No process globals, no threads but its own; nothing here knows JavaScript.
#pragma once

#include <functional>
#include <memory>
#include <span>

#include "engine/run.h"

namespace flexplan {

using MakeDevice = std::function<std::unique_ptr<Device>(const EngineConfig&, ThreadPool&, Budgets&)>;

class Engine {
 public:
  // makeDevice: makes the device of the configuration's kind when it is not given. Throws Error kBadInput.
  explicit Engine(EngineConfig config, MakeDevice makeDevice = {});
  ~Engine();

  // Takes the device and loads the weights. Returns their bytes on each tier, vectors included.
  // Throws Error kBadInput, kNoDevice, kOutOfMemory, kNoDiskSpace.
  PerTier<int64_t> open();
  // Runs all sequences; onStep is called on the calling thread. One run at a time, after open().
  // Throws Error; a cancelled run returns what there is.
  RunResult run(std::span<const Sequence> sequences, const StepCallback& onStep, const Cancellation& cancellation);

 private:
  // Everything that open() takes, in the order in which it depends on what came before.
  struct Loaded;

  const EngineConfig config_;
  const MakeDevice makeDevice_;
  std::unique_ptr<Loaded> loaded_;
};

}  // namespace flexplan
