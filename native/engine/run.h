// One call of Engine::run: all sequences, block after block, with the memory that this takes.
#pragma once

#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "engine/block_run.h"

namespace flexplan {

// What a run needs of the engine.
struct RunContext {
  const EngineConfig& config;
  const Weights& weights;
  const ModelLayers& layers;
  ThreadPool& pool;
  Device& device;
  IoPool& io;
  Budgets& budgets;
};

class Run {
 public:
  // Takes the memory of the largest block. Throws Error kBadInput, kOutOfMemory, kNoDiskSpace.
  Run(const RunContext& context, std::span<const Sequence> sequences, const Cancellation& cancellation);
  ~Run();

  // Blocks until all is done or cancelled; what is not finished then ends as cancelled. Calls onStep on the calling
  // thread. Throws the first error of any task.
  RunResult execute(const StepCallback& onStep);

 private:
  void runBlock(const Block& block, const StepCallback& onStep);
  void fail(std::exception_ptr error);
  void startWeights();
  void stopWeights();
  RunResult report();

  const RunContext& context_;
  const std::span<const Sequence> sequences_;
  const Cancellation& cancellation_;
  const std::vector<Block> blocks_;
  Transfer transfer_;
  Trace trace_;
  StageClock clock_;
  KvCache kvCache_;
  HiddenStates hiddenStates_;
  WeightStream weightStream_;
  const std::shared_ptr<void> deviceScratch_;
  const MemoryBudget::Charge cpuScores_;
  SharedPrefixes prefixes_;
  Forward forward_;
  std::thread weightThread_;
  RunResult result_;
  int64_t numVisitsDone_ = 0;
  int64_t numVisitsPlanned_ = 0;

  std::mutex mutex_;
  bool failed_ = false;
  std::exception_ptr error_;
  BlockRun* blockRun_ = nullptr;
};

}  // namespace flexplan
