// The weights that are away from the device, brought there layer by layer into two buffers: one is computed with while
// the other fills. A visit is one pass of a block's step through one schedule layer; visits are counted over the whole
// run, because after the last layer the first comes next whether the same block goes on or another begins.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "engine/kv_cache.h"
#include "engine/progress.h"
#include "engine/trace.h"
#include "engine/transfer.h"
#include "model/weights.h"

namespace flexplan {

class WeightStream {
 public:
  WeightStream(const Weights& weights, Transfer& transfer, Budgets& budgets, Trace& trace, bool overlap);

  // Whether any layer has anything to stream.
  bool loads() const { return bufferBytes_ > 0; }
  // The block that runs begins at `firstVisit` and takes numSteps steps at most; numVisits: planned for the whole run.
  void beginBlock(int64_t block, int64_t firstVisit, int64_t numSteps, int64_t numVisits);

  // Fills the buffer of one visit. In order, by one thread.
  void load(int64_t visit);
  // Loads all visits ahead of compute, until the run's last. Throws Stopped after stop().
  void loadAll();
  const std::byte* buffer(int64_t visit) const { return buffers_.data() + visit % kBuffers * bufferBytes_; }

  // Visits loaded.
  Progress loaded;
  // Compute has asked the device for all that it wants of the visit's weights.
  void publishComputed(int64_t visit);
  void stop();

 private:
  static constexpr int64_t kBuffers = 2;
  struct Where {
    int64_t block;
    Item item;
  };
  const LayerWeights& layer(int64_t visit) const { return weights_.layer(visit % weights_.numLayers()); }
  Where where(int64_t visit) const;
  int64_t numVisits() const;
  void awaitComputed(int64_t visit);
  void readDisk(int64_t visit);
  void fill(int64_t visit);

  const Weights& weights_;
  Transfer& transfer_;
  Trace& trace_;
  const bool overlap_;
  const bool hasGpuTier_;
  int64_t bufferBytes_ = 0;
  int64_t stagingBytes_ = 0;
  TierBuffer buffers_;
  TierBuffer staging_;
  std::array<std::unique_ptr<IoBatch>, kBuffers> reads_;  // destroyed before the memory that they fill
  Progress computed_;
  Marks marks_;  // of the visits in computed_
  int64_t numRead_ = 0;                                   // visits whose disk rows have been asked for

  mutable std::mutex mutex_;
  int64_t block_ = 0;
  int64_t firstVisit_ = 0;
  int64_t endVisit_ = 0;
  int64_t numVisits_ = 0;
};

}  // namespace flexplan
