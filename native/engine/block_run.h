// One block through the zig-zag schedule: for each token step, for each schedule layer, for each GPU batch, six tasks
// (docs/schedule.md, "One step"). Every task goes through its items in the same order and publishes how far it has
// come; what an item needs of the others is a number to wait for. With overlap each task that has anything to do has a
// thread.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "engine/admission.h"
#include "engine/cancellation.h"
#include "engine/forward.h"
#include "engine/progress.h"
#include "engine/shared_prefixes.h"
#include "engine/trace.h"
#include "engine/weight_stream.h"

namespace flexplan {

// What a block needs of the run that it is part of.
struct BlockContext {
  const EngineConfig& config;
  std::span<const Sequence> sequences;
  Device& device;
  Forward& forward;
  KvCache& kvCache;
  HiddenStates& hiddenStates;
  SharedPrefixes& prefixes;
  WeightStream& weights;
  Trace& trace;
  const Cancellation& cancellation;
  const StepCallback& onStep;
  // Reports the first error of any thread; stops the run.
  std::function<void(std::exception_ptr)> fail;
};

class BlockRun {
 public:
  // firstVisit: number of layer visits of the blocks before.
  BlockRun(const Block& block, const BlockContext& context, int64_t firstVisit, std::vector<SequenceResult>& results);

  // Throws Stopped when it was stopped; the results so far are valid.
  void run();
  // Makes every task give up. From any thread.
  void stop();

  int64_t numStepsDone() const { return numSteps_.load(); }
  // Prompt tokens that were not computed, because another prompt begins with them.
  int64_t numSharedTokens() const { return numSharedTokens_; }
  // Since run() began; prefill: of the steps in which prompts are computed.
  PerPhase<double> secondsSoFar() const;

 private:
  Item item(int64_t step, int64_t layer, int64_t batch) const;
  int64_t indexAfter(int64_t step, int64_t layer, int64_t batch) const;
  const BatchStep& batchStep(const Item& item) const;
  BatchStep& nextBatchStep(const Item& item);
  void startFirstStep();
  void enter(BatchStep& step, int64_t slot, int64_t sequence);
  bool isDropped(int64_t sequence);
  void refill(BatchStep& step, int64_t batch);
  std::optional<int64_t> slotWithRoom(int64_t batch, const Sequence& sequence) const;
  void leave(const ActiveSlot& active);
  std::span<BatchStep> steps(int64_t step);
  void beginStep(int64_t step);
  int64_t numGenerated(int64_t sequence) const {
    return static_cast<int64_t>(results_[static_cast<size_t>(sequence)].tokenIds.size());
  }

  void runTogether();
  void runInOrder();
  void startTask(void (BlockRun::*task)(), Progress& progress);

  void computeTask();
  void loadKvCacheTask();
  void loadActivationsTask();
  void storeKvCacheTask();
  void storeActivationsTask();
  bool isEnded(int64_t step) const { return step >= numSteps_.load(); }

  void awaitInputs(const Item& item);
  void awaitComputed(const Item& item);
  void compute(const Item& item);
  void finishHead(const Item& item, const std::byte* buffer);
  void loadKvCache(const Item& item);
  void loadActivations(const Item& item);
  void storeKvCache(const Item& item);
  void storeActivations(const Item& item);
  void keepLogits(int64_t sequence, int64_t n);
  bool acceptToken(int64_t sequence, int32_t token);
  void endStep(int64_t step);

  const Block& block_;
  const BlockContext& context_;
  const int64_t firstVisit_;
  const int64_t numLayers_;  // schedule layers
  std::vector<SequenceResult>& results_;

  Marks marks_;  // of the items in computed_
  Progress computed_, kvLoaded_, activationsLoaded_, kvStored_, activationsStored_;
  bool loadsKvCache_ = false, storesKvCache_ = false, movesActivations_ = false;
  std::atomic<int64_t> numSteps_;  // lowered when all sequences have ended
  std::vector<std::thread> threads_;
  std::atomic<bool> stopped_{false};

  // Two steps are alive at once: loads may be in the next while stores are in the last.
  std::array<std::vector<BatchStep>, 2> batchSteps_;
  StepEvent event_;
  double startSeconds_ = 0;
  double stepStartSeconds_ = 0;
  double prefillSeconds_ = 0;
  int64_t numSharedTokens_ = 0;
  // Diagonal.
  std::optional<Admission> admission_;
  int64_t nextWaiting_ = 0;  // the sequence that enters next
};

}  // namespace flexplan
