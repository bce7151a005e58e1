// A device whose operations are queued: a thread of its own runs them later, after random delays. What the engine reads
// or overwrites too early shows as wrong results, and as data races under the thread sanitizer.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "model/device.h"
#include "test/check.h"

namespace flexplan::test {

class AsyncDevice final : public Device {
 public:
  // `inner` runs the operations; it must not share its threads with anybody.
  AsyncDevice(std::unique_ptr<ThreadPool> pool, std::unique_ptr<Device> inner, uint64_t seed);
  ~AsyncDevice() override;

  Tier tier() const override { return inner_->tier(); }
  TierBuffer allocate(int64_t bytes, const std::string& what, size_t alignment) override {
    return inner_->allocate(bytes, what, alignment);
  }
  LinkChannel& cpuToGpu() override { return inner_->cpuToGpu(); }
  LinkChannel& gpuToCpu() override { return inner_->gpuToCpu(); }
  int64_t mark() override;
  void await(int64_t mark) override;

  void copy(std::span<const CopyPiece> pieces) override;
  std::span<const float> view(const float* data, int64_t count, std::vector<float>& scratch) override;
  std::vector<int32_t> chooseTokens(const float* logits, std::span<const cpu::TokenChoice> choices,
                                    int64_t vocabSize) override;
  void matmul(std::span<const cpu::Matmul> ops, int64_t tokens) override;
  void toFloat(DataType from, const std::byte* rows, int64_t numRows, int64_t cols, float* out) override;
  void fromFloat(DataType to, const float* rows, int64_t numRows, int64_t cols, std::byte* out) override;
  void norm(const float* x, const float* weight, const float* bias, float epsilon, int64_t tokens, int64_t size,
            float* y) override;
  void add(const float* x, int64_t count, float* y) override;
  void activate(cpu::Activation f, const float* gate, int64_t count, float* x) override;
  void rope(std::span<const int32_t> positions, const float* inverseFrequencies, int64_t numHeads, int64_t headDim,
            int64_t xStride, float* x) override;
  void attention(const cpu::AttentionShape& shape, std::span<const cpu::AttentionSequence> sequences) override;
  void storeKvRows(const KvRows& from, std::span<const KvRun> runs) override;
  void route(const float* scores, int64_t tokens, const cpu::Routing& routing, const cpu::ExpertRows& out) override;
  void gatherRows(const float* x, const int32_t* rows, int64_t count, int64_t size, float* out) override;
  void matmulByExpert(std::span<const cpu::Matmul> ops, const int32_t* ends, int64_t numExperts,
                      int64_t numRows) override;
  void addExpertRows(const float* x, const cpu::ExpertRows& rows, int64_t tokens, int64_t numActive, int64_t size,
                     float* y) override;

  // KV rows before the chunk in which a sequence's window begins are NaN from its attention on. (Not for prompts that
  // share rows: others may still need them.)
  void spoilRowsBeforeWindows() { spoilsRows_ = true; }
  int64_t numSpoiledRows() const { return numSpoiledRows_; }

  // Host waits for operations that were not done yet.
  int64_t numWaits() const { return numWaits_; }

 private:
  void queue(std::function<void(Device&)> operation);
  void work();

  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<Device> inner_;
  Random random_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void(Device&)>> operations_;
  int64_t numQueued_ = 0, numDone_ = 0, numWaits_ = 0;
  std::atomic<bool> spoilsRows_ = false;
  std::atomic<int64_t> numSpoiledRows_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace flexplan::test
