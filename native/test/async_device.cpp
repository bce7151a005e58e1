#include "test/async_device.h"

#include <algorithm>
#include <chrono>

namespace flexplan::test {
namespace {

template <typename Value>
std::vector<Value> copyOf(std::span<const Value> values) {
  return {values.begin(), values.end()};
}

// Fills what a sequence's queries need not see with NaN. Returns the number of rows.
int64_t spoilRowsBeforeWindow(const cpu::AttentionShape& shape, const cpu::AttentionSequence& sequence) {
  const auto rowBytes = static_cast<int64_t>(cpu::kvRowBytes(sequence.kv.dtype, shape.numKvHeads, shape.headDim));
  const int64_t first = std::max<int64_t>(0, sequence.numPast - shape.slidingWindow + 1);
  const int64_t end = shape.slidingWindow > 0 ? first / cpu::kAttentionChunk * cpu::kAttentionChunk : 0;
  for (int64_t row = 0; row < end; ++row) {
    std::byte* const page = const_cast<std::byte*>(sequence.kv.pages[row / sequence.kv.pageRows]);
    std::fill_n(page + row % sequence.kv.pageRows * rowBytes, rowBytes, std::byte{0xff});
  }
  return end;
}

}  // namespace

AsyncDevice::AsyncDevice(std::unique_ptr<ThreadPool> pool, std::unique_ptr<Device> inner, uint64_t seed)
    : pool_(std::move(pool)), inner_(std::move(inner)), random_(seed), thread_([this] { work(); }) {}

AsyncDevice::~AsyncDevice() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void AsyncDevice::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !operations_.empty(); });
    if (operations_.empty()) return;
    const auto operation = std::move(operations_.front());
    operations_.pop_front();
    lock.unlock();
    if (random_.below(16) == 0) std::this_thread::sleep_for(std::chrono::microseconds(random_.below(200)));
    operation(*inner_);
    lock.lock();
    ++numDone_;
    changed_.notify_all();
  }
}

void AsyncDevice::queue(std::function<void(Device&)> operation) {
  const std::lock_guard lock(mutex_);
  operations_.push_back(std::move(operation));
  ++numQueued_;
  changed_.notify_all();
}

int64_t AsyncDevice::mark() {
  const std::lock_guard lock(mutex_);
  return numQueued_;
}

void AsyncDevice::await(int64_t mark) {
  std::unique_lock lock(mutex_);
  if (numDone_ < mark) ++numWaits_;
  changed_.wait(lock, [&] { return numDone_ >= mark; });
}

std::span<const float> AsyncDevice::view(const float* data, int64_t count, std::vector<float>& scratch) {
  await(mark());
  scratch.assign(data, data + count);
  return scratch;
}

std::vector<int32_t> AsyncDevice::chooseTokens(const float* logits, std::span<const cpu::TokenChoice> choices,
                                               int64_t vocabSize) {
  await(mark());
  return inner_->chooseTokens(logits, choices, vocabSize);
}

void AsyncDevice::copy(std::span<const CopyPiece> pieces) {
  queue([own = copyOf(pieces)](Device& device) { device.copy(own); });
}

void AsyncDevice::matmul(std::span<const cpu::Matmul> ops, int64_t tokens) {
  queue([own = copyOf(ops), tokens](Device& device) { device.matmul(own, tokens); });
}

void AsyncDevice::toFloat(DataType from, const std::byte* rows, int64_t numRows, int64_t cols, float* out) {
  queue([=](Device& device) { device.toFloat(from, rows, numRows, cols, out); });
}

void AsyncDevice::fromFloat(DataType to, const float* rows, int64_t numRows, int64_t cols, std::byte* out) {
  queue([=](Device& device) { device.fromFloat(to, rows, numRows, cols, out); });
}

void AsyncDevice::norm(const float* x, const float* weight, const float* bias, float epsilon, int64_t tokens,
                       int64_t size, float* y) {
  queue([=](Device& device) { device.norm(x, weight, bias, epsilon, tokens, size, y); });
}

void AsyncDevice::add(const float* x, int64_t count, float* y) {
  queue([=](Device& device) { device.add(x, count, y); });
}

void AsyncDevice::activate(cpu::Activation f, const float* gate, int64_t count, float* x) {
  queue([=](Device& device) { device.activate(f, gate, count, x); });
}

void AsyncDevice::rope(std::span<const int32_t> positions, const float* inverseFrequencies, int64_t numHeads,
                       int64_t headDim, int64_t xStride, float* x) {
  std::vector<float> frequencies(inverseFrequencies, inverseFrequencies + headDim / 2);
  queue([own = copyOf(positions), frequencies, numHeads, headDim, xStride, x](Device& device) {
    device.rope(own, frequencies.data(), numHeads, headDim, xStride, x);
  });
}

void AsyncDevice::attention(const cpu::AttentionShape& shape, std::span<const cpu::AttentionSequence> sequences) {
  std::vector<std::vector<const std::byte*>> pages;
  for (const cpu::AttentionSequence& sequence : sequences) {
    const int64_t rows = sequence.numPast + sequence.numQueries;
    const int64_t numPages = (rows + sequence.kv.pageRows - 1) / sequence.kv.pageRows;
    pages.emplace_back(sequence.kv.pages, sequence.kv.pages + numPages);
  }
  queue([this, shape, own = copyOf(sequences), pages = std::move(pages)](Device& device) {
    std::vector<cpu::AttentionSequence> paged = own;
    for (size_t n = 0; n < paged.size(); ++n) {
      paged[n].kv.pages = pages[n].data();
      if (spoilsRows_) numSpoiledRows_ += spoilRowsBeforeWindow(shape, paged[n]);
    }
    device.attention(shape, paged);
  });
}

void AsyncDevice::storeKvRows(const KvRows& from, std::span<const KvRun> runs) {
  queue([from, own = copyOf(runs)](Device& device) { device.storeKvRows(from, own); });
}

void AsyncDevice::route(const float* scores, int64_t tokens, const cpu::Routing& routing, const cpu::ExpertRows& out) {
  queue([=](Device& device) { device.route(scores, tokens, routing, out); });
}

void AsyncDevice::gatherRows(const float* x, const int32_t* rows, int64_t count, int64_t size, float* out) {
  queue([=](Device& device) { device.gatherRows(x, rows, count, size, out); });
}

void AsyncDevice::matmulByExpert(std::span<const cpu::Matmul> ops, const int32_t* ends, int64_t numExperts,
                                 int64_t numRows) {
  queue([own = copyOf(ops), ends, numExperts, numRows](Device& device) {
    device.matmulByExpert(own, ends, numExperts, numRows);
  });
}

void AsyncDevice::addExpertRows(const float* x, const cpu::ExpertRows& rows, int64_t tokens, int64_t numActive,
                                int64_t size, float* y) {
  queue([=](Device& device) { device.addExpertRows(x, rows, tokens, numActive, size, y); });
}

}  // namespace flexplan::test
