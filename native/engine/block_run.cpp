#include "engine/block_run.h"

#include <algorithm>

#include "engine/sampler.h"

namespace flexplan {

BlockRun::BlockRun(const Block& block, const BlockContext& context, int64_t firstVisit,
                   std::vector<SequenceResult>& results)
    : block_(block),
      context_(context),
      firstVisit_(firstVisit),
      numLayers_(context.config.model.numScheduleLayers()),
      results_(results),
      numSteps_(block.numSteps) {
  context.kvCache.beginBlock(block);
  context.hiddenStates.beginBlock(block);
  loadsKvCache_ = block.numSteps > 1 && context.kvCache.loads(Phase::kDecode);
  storesKvCache_ = context.kvCache.stores(Phase::kPrefill);
  movesActivations_ = context.hiddenStates.moves();
  for (auto& steps : batchSteps_) steps.resize(block.chunks.size());
  if (block.refills) admission_.emplace(block, context.device.tier());
}

Item BlockRun::item(int64_t step, int64_t layer, int64_t batch) const {
  const int64_t before = step == 0 ? 0 : numLayers_ * (block_.numItems(0) + (step - 1) * block_.numGpuBatches);
  return {step, layer, batch, before + layer * block_.numItems(step) + batch};
}

// The index behind the last item of a GPU batch.
int64_t BlockRun::indexAfter(int64_t step, int64_t layer, int64_t batch) const {
  return item(step, layer, block_.firstItem(step, batch + 1)).index;
}

const BatchStep& BlockRun::batchStep(const Item& item) const {
  return batchSteps_[static_cast<size_t>(item.step % 2)][static_cast<size_t>(item.batch)];
}

BatchStep& BlockRun::nextBatchStep(const Item& item) {
  const int64_t batch = item.step == 0 ? block_.chunks[static_cast<size_t>(item.batch)].batch : item.batch;
  return batchSteps_[static_cast<size_t>((item.step + 1) % 2)][static_cast<size_t>(batch)];
}

void BlockRun::startFirstStep() {
  event_ = {block_.index, 0, {}, {}, {}};
  context_.prefixes.beginStep();
  for (size_t c = 0; c < block_.chunks.size(); ++c) {
    BatchStep& step = batchSteps_[0][c];
    if (block_.refills) {
      refill(step, block_.chunks[c].batch);
      continue;
    }
    context_.prefixes.beginItem(static_cast<int64_t>(c));
    for (int64_t b = block_.chunks[c].firstSlot; b < block_.chunks[c].endSlot; ++b) {
      const int64_t sequence = block_.slots[static_cast<size_t>(b)].sequence;
      if (sequence >= 0 && !isDropped(sequence)) enter(step, b, sequence);
    }
    context_.kvCache.stage(step);
  }
  beginStep(0);
}

void BlockRun::enter(BatchStep& step, int64_t slot, int64_t sequence) {
  const Sequence& from = context_.sequences[static_cast<size_t>(sequence)];
  ActiveSlot entering;
  entering.slot = slot;
  entering.sequence = sequence;
  entering.isPrompt = true;
  entering.scorePrompt = from.scorePrompt;
  context_.prefixes.enter(entering, static_cast<int64_t>(step.active.size()), from);
  numSharedTokens_ += entering.numPast;
  step.add(entering, std::span(from.promptIds).subspan(static_cast<size_t>(entering.numPast)));
}

// Whether it was cancelled before it could enter.
bool BlockRun::isDropped(int64_t sequence) {
  if (!context_.cancellation.isCancelled(sequence)) return false;
  event_.finished.push_back({static_cast<int32_t>(sequence), FinishReason::kCancelled});
  return true;
}

// Waiting sequences, in order, each take the first free slot of a GPU batch where there is room for them.
void BlockRun::refill(BatchStep& step, int64_t batch) {
  context_.prefixes.beginItem(batch);
  for (; nextWaiting_ < static_cast<int64_t>(context_.sequences.size()); ++nextWaiting_) {
    if (isDropped(nextWaiting_)) continue;
    const Sequence& sequence = context_.sequences[static_cast<size_t>(nextWaiting_)];
    const auto slot = slotWithRoom(batch, sequence);
    if (!slot) break;
    enter(step, *slot, nextWaiting_);
    admission_->enter(*slot, sequence);
    context_.kvCache.enter(*slot, nextWaiting_);
  }
  context_.kvCache.stage(step);
  context_.hiddenStates.place(step, batch);
}

std::optional<int64_t> BlockRun::slotWithRoom(int64_t batch, const Sequence& sequence) const {
  std::optional<int64_t> refused;
  for (int64_t b = batch * block_.gpuBatchSize; b < (batch + 1) * block_.gpuBatchSize; ++b) {
    if (block_.slots[static_cast<size_t>(b)].sequence < 0 || !admission_->isFree(b)) continue;
    if (refused && admission_->areAlike(b, *refused)) continue;
    if (admission_->hasRoom(b, sequence)) return b;
    refused = b;
  }
  return std::nullopt;
}

void BlockRun::leave(const ActiveSlot& active) {
  if (!admission_) return;
  admission_->leave(active.slot);
  context_.kvCache.leave(active);
}

std::span<BatchStep> BlockRun::steps(int64_t step) {
  return std::span(batchSteps_[static_cast<size_t>(step % 2)]).first(static_cast<size_t>(block_.numItems(step)));
}

// All of the step is known, and nothing of it is computed yet.
void BlockRun::beginStep(int64_t step) {
  if (!admission_) return;
  for (const BatchStep& batch : steps(step)) context_.kvCache.takePages(batch);
  admission_->prepareStep(step + 1);
}

void BlockRun::run() {
  startSeconds_ = stepStartSeconds_ = nowSeconds();
  startFirstStep();
  context_.config.overlap ? runTogether() : runInOrder();
}

PerPhase<double> BlockRun::secondsSoFar() const {
  const double total = nowSeconds() - startSeconds_;
  const double prefill = prefillSeconds_ > 0 ? prefillSeconds_ : total;
  return {{{prefill, total - prefill}}};
}

void BlockRun::stop() {
  stopped_.store(true);
  for (Progress* progress : {&computed_, &kvLoaded_, &activationsLoaded_, &kvStored_, &activationsStored_})
    progress->stop();
}

void BlockRun::runInOrder() {
  for (int64_t i = 0; !isEnded(i); ++i) {
    for (int64_t j = 0; j < numLayers_; ++j) {
      if (context_.weights.loads()) context_.weights.load(firstVisit_ + i * numLayers_ + j);
      for (int64_t k = 0; k < block_.numItems(i); ++k) {
        const Item x = item(i, j, k);
        loadKvCache(x);
        loadActivations(x);
        compute(x);
        context_.device.await(context_.device.mark());
        storeKvCache(x);
        storeActivations(x);
        if (stopped_.load()) throw Stopped();
      }
    }
  }
}

void BlockRun::runTogether() {
  if (loadsKvCache_) startTask(&BlockRun::loadKvCacheTask, kvLoaded_);
  if (storesKvCache_) startTask(&BlockRun::storeKvCacheTask, kvStored_);
  if (movesActivations_) {
    startTask(&BlockRun::loadActivationsTask, activationsLoaded_);
    startTask(&BlockRun::storeActivationsTask, activationsStored_);
  }
  try {
    computeTask();
  } catch (...) {
    context_.fail(std::current_exception());
  }
  for (std::thread& thread : threads_) thread.join();
  if (stopped_.load()) throw Stopped();
}

// A task that is through holds nobody up, not even one that has begun on a step that will not come.
void BlockRun::startTask(void (BlockRun::*task)(), Progress& progress) {
  threads_.emplace_back([this, task, &progress] {
    try {
      (this->*task)();
      progress.publish(Progress::kComplete);
    } catch (...) {
      context_.fail(std::current_exception());
    }
  });
}

void BlockRun::computeTask() {
  for (int64_t i = 0; !isEnded(i); ++i) {
    for (int64_t j = 0; j < numLayers_; ++j) {
      for (int64_t k = 0; k < block_.numItems(i); ++k) {
        const Item x = item(i, j, k);
        awaitInputs(x);
        compute(x);
        marks_.note(x.index, context_.device.mark());
        computed_.publish(x.index + 1);
      }
      context_.weights.publishComputed(firstVisit_ + i * numLayers_ + j);
    }
  }
  computed_.publish(Progress::kComplete);
}

// Returns when the device is done with the item, and its operands may be copied or overwritten.
void BlockRun::awaitComputed(const Item& x) {
  computed_.waitFor(x.index + 1);
  context_.device.await(marks_.of(x.index));
}

void BlockRun::awaitInputs(const Item& x) {
  if (context_.weights.loads()) context_.weights.loaded.waitFor(firstVisit_ + x.step * numLayers_ + x.layer + 1);
  const bool decoder = x.layer > 0 && x.layer < numLayers_ - 1;
  if (loadsKvCache_ && decoder && x.step > 0) kvLoaded_.waitFor(x.index + 1);
  if (storesKvCache_ && decoder) kvStored_.waitFor(context_.kvCache.storesBefore(x));
  if (!movesActivations_) return;
  if (x.layer > 0) activationsLoaded_.waitFor(x.index + 1);
  activationsStored_.waitFor(context_.hiddenStates.storesBefore(x));
}

void BlockRun::loadKvCacheTask() {
  for (int64_t i = 1; !isEnded(i); ++i) {
    for (int64_t j = 1; j < numLayers_ - 1; ++j) {
      for (int64_t k = 0; k < block_.numGpuBatches; ++k) {
        // Who is live in this step is known when the batch has left the head in the step before.
        computed_.waitFor(indexAfter(i - 1, numLayers_ - 1, k));
        if (isEnded(i)) return;
        const Item x = item(i, j, k);
        kvStored_.waitFor(std::max(indexAfter(i - 1, j, k), context_.kvCache.storesBefore(x)));
        loadKvCache(x);
        kvLoaded_.publish(x.index + 1);
      }
    }
  }
}

void BlockRun::loadActivationsTask() {
  for (int64_t i = 0; !isEnded(i); ++i) {
    for (int64_t j = 1; j < numLayers_; ++j) {
      for (int64_t k = 0; k < block_.numItems(i); ++k) {
        const Item x = item(i, j, k);
        activationsStored_.waitFor(std::max(item(i, j - 1, k).index + 1, context_.hiddenStates.storesBefore(x)));
        if (isEnded(i)) return;
        loadActivations(x);
        activationsLoaded_.publish(x.index + 1);
      }
    }
  }
}

void BlockRun::storeKvCacheTask() {
  for (int64_t i = 0; !isEnded(i); ++i) {
    if (i == 1 && !block_.refills && !context_.kvCache.stores(Phase::kDecode)) return;
    for (int64_t j = 0; j < numLayers_; ++j) {
      for (int64_t k = 0; k < block_.numItems(i); ++k) {
        const Item x = item(i, j, k);
        if (j > 0 && j < numLayers_ - 1) {
          awaitComputed(x);
          if (isEnded(i)) return;
          storeKvCache(x);
        }
        kvStored_.publish(x.index + 1);
      }
    }
  }
}

void BlockRun::storeActivationsTask() {
  for (int64_t i = 0; !isEnded(i); ++i) {
    for (int64_t j = 0; j < numLayers_; ++j) {
      for (int64_t k = 0; k < block_.numItems(i); ++k) {
        const Item x = item(i, j, k);
        // The head stores nothing, but it reads its buffer until it is done.
        awaitComputed(x);
        if (isEnded(i)) return;
        storeActivations(x);
        activationsStored_.publish(x.index + 1);
      }
    }
  }
}

void BlockRun::loadKvCache(const Item& x) {
  if (!loadsKvCache_ || x.step == 0 || x.layer == 0 || x.layer == numLayers_ - 1 || batchStep(x).empty()) return;
  context_.trace.record(Task::kLoadKvCache, block_.index, x, [&] { context_.kvCache.load(x, batchStep(x)); });
}

void BlockRun::loadActivations(const Item& x) {
  if (!movesActivations_ || x.layer == 0 || batchStep(x).empty()) return;
  context_.trace.record(Task::kLoadActivations, block_.index, x, [&] { context_.hiddenStates.load(x, batchStep(x)); });
}

void BlockRun::storeKvCache(const Item& x) {
  if (!storesKvCache_ || x.layer == 0 || x.layer == numLayers_ - 1 || batchStep(x).empty()) return;
  context_.trace.record(Task::kStoreKvCache, block_.index, x, [&] { context_.kvCache.store(x, batchStep(x)); });
}

void BlockRun::storeActivations(const Item& x) {
  if (!movesActivations_ || x.layer == numLayers_ - 1 || batchStep(x).empty()) return;
  context_.trace.record(Task::kStoreActivations, block_.index, x,
                        [&] { context_.hiddenStates.store(x, batchStep(x)); });
}

void BlockRun::compute(const Item& x) {
  if (context_.cancellation.isCancelled()) throw Stopped();
  const BatchStep& step = batchStep(x);
  const bool isHead = x.layer == numLayers_ - 1;
  if (!step.empty()) {
    const std::byte* const buffer =
        context_.weights.loads() ? context_.weights.buffer(firstVisit_ + x.step * numLayers_ + x.layer) : nullptr;
    context_.trace.record(Task::kCompute, block_.index, x, [&] {
      if (x.layer == 0) {
        context_.forward.embed(x, step, buffer);
      } else if (!isHead) {
        context_.forward.decode(x, step, buffer);
      } else {
        finishHead(x, buffer);
      }
    });
  } else if (isHead && x.step > 0) {
    nextBatchStep(x) = {};
  }
  if (!isHead) return;
  if (x.batch == 0) context_.prefixes.beginStep();  // of this one all items have left the last decoder
  if (block_.refills) {
    refill(nextBatchStep(x), x.batch);
  } else {
    context_.kvCache.stage(nextBatchStep(x));
  }
  if (x.batch == block_.numItems(x.step) - 1) endStep(x.step);
}

// Samples the next token of each live sequence, and decides who goes on.
void BlockRun::finishHead(const Item& x, const std::byte* buffer) {
  const BatchStep& step = batchStep(x);
  for (const ActiveSlot& active : step.active) {
    if (!active.isPrompt || !active.scorePrompt) continue;
    results_[static_cast<size_t>(active.sequence)].promptLogProbs =
        context_.forward.scorePrompt(x, step, active, buffer);
  }
  std::vector<cpu::TokenChoice> choices;
  for (const ActiveSlot& active : step.active)
    choices.push_back(
        nextChoice(context_.sequences[static_cast<size_t>(active.sequence)], numGenerated(active.sequence)));
  const std::vector<int32_t> tokens = context_.forward.head(x, step, choices, buffer);
  BatchStep& next = nextBatchStep(x);
  if (x.step > 0) next = {};  // the chunks of a GPU batch share one
  for (size_t n = 0; n < tokens.size(); ++n) {
    const ActiveSlot& active = step.active[n];
    keepLogits(active.sequence, static_cast<int64_t>(n));
    if (!acceptToken(active.sequence, tokens[n])) {
      leave(active);
      continue;
    }
    ActiveSlot staying = active;
    staying.numPast += active.numTokens;
    staying.isPrompt = false;
    staying.leader = staying.prefix = -1;
    next.add(staying, {&tokens[n], 1});
  }
}

// Of the n-th active slot, where they are wanted.
void BlockRun::keepLogits(int64_t sequence, int64_t n) {
  const Sequence& from = context_.sequences[static_cast<size_t>(sequence)];
  if (numGenerated(sequence) >= std::min(from.logitsSteps, from.maxTokens)) return;
  const auto logits = context_.forward.logits(n);
  results_[static_cast<size_t>(sequence)].logits.emplace_back(logits.begin(), logits.end());
}

// Records a sequence's next token. Returns whether the sequence goes on.
bool BlockRun::acceptToken(int64_t sequence, int32_t token) {
  const Sequence& from = context_.sequences[static_cast<size_t>(sequence)];
  SequenceResult& result = results_[static_cast<size_t>(sequence)];
  const int64_t step = numGenerated(sequence);
  const auto finish = [&](FinishReason reason) {
    result.finishReason = reason;
    event_.finished.push_back({static_cast<int32_t>(sequence), reason});
    return false;
  };
  if (from.maxTokens == 0) return finish(FinishReason::kLength);
  if (std::ranges::find(from.stopIds, token) != from.stopIds.end()) return finish(FinishReason::kStop);
  result.tokenIds.push_back(token);
  event_.sequences.push_back(static_cast<int32_t>(sequence));
  event_.tokenIds.push_back(token);
  if (step + 1 == from.maxTokens) return finish(FinishReason::kLength);
  if (context_.cancellation.isCancelled(sequence)) return finish(FinishReason::kCancelled);
  return true;
}

void BlockRun::endStep(int64_t step) {
  const double now = nowSeconds();
  const auto items = steps(step);
  if (std::ranges::any_of(items, [](const BatchStep& item) { return item.phase() == Phase::kPrefill; }))
    prefillSeconds_ += now - stepStartSeconds_;
  stepStartSeconds_ = now;
  const auto next = steps(step + 1);
  const bool isWaiting = admission_ && nextWaiting_ < static_cast<int64_t>(context_.sequences.size());
  if (!isWaiting && std::ranges::all_of(next, [](const BatchStep& batch) { return batch.empty(); })) {
    numSteps_.store(step + 1);
  } else {
    beginStep(step + 1);
  }
  context_.onStep(event_);
  event_ = {block_.index, step + 1, {}, {}, {}};
}

}  // namespace flexplan
