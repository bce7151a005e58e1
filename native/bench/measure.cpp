#include "bench/measure.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>
#include <unistd.h>

#include "bench/operands.h"
#include "core/aligned_buffer.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"

namespace flexplan::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kReadGrain = int64_t{4} << 20;

// Bytes that certainly push everything else out of the last-level cache.
int64_t cacheSpillBytes() {
  int64_t cache = 0;
#if defined(_SC_LEVEL3_CACHE_SIZE)
  cache = std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), sysconf(_SC_LEVEL2_CACHE_SIZE));
#endif
  constexpr int64_t kUnknown = int64_t{32} << 20;
  return 2 * (cache > 0 ? cache : kUnknown);
}

constexpr int kLaunchesInARow = 20;
// A small matmul: enough pieces for each thread, of a few microseconds each.
constexpr int64_t kLaunchRangesPerThread = 8;

// A few microseconds of one thread.
uint32_t busyWork() {
  uint32_t state = 1;
  for (int i = 0; i < 2000; ++i) state = (state ^ (state >> 7)) * 1664525u + 1013904223u;
  return state;
}

// Copies of an operand that must take turns so that each is out of the cache when its turn comes.
int64_t numCopies(int64_t bytes) { return cacheSpillBytes() / bytes + 2; }

// Times body(i) for i = 0 .. repetitions - 1, after two calls that are not timed.
template <typename Body>
Samples sample(int repetitions, double work, Body&& body) {
  constexpr int kWarmUps = 2;
  Samples samples{{}, work};
  samples.seconds.reserve(size(repetitions));
  for (int i = -kWarmUps; i < repetitions; ++i) {
    const auto start = Clock::now();
    body(i + kWarmUps);
    const std::chrono::duration<double> taken = Clock::now() - start;
    if (i >= 0) samples.seconds.push_back(taken.count());
  }
  return samples;
}

// One prefill or decode of `sequences` equal sequences over a KV buffer.
class AttentionRun {
 public:
  AttentionRun(ThreadPool& pool, const AttentionSetting& setting)
      : pool_(pool), setting_(setting), queries_(setting.phase == Phase::kPrefill ? setting.tokens : 1),
        width_(setting.numHeads * setting.headDim), q_(randomFloats(setting.sequences * queries_ * width_)),
        out_(size(setting.sequences * queries_ * width_) * sizeof(float)) {}

  void run(const std::byte* kv) {
    const auto sequenceBytes =
        setting_.tokens * static_cast<int64_t>(cpu::kvRowBytes(setting_.kvType, setting_.numKvHeads, setting_.headDim));
    pages_.clear();
    sequences_.clear();
    for (int64_t i = 0; i < setting_.sequences; ++i) pages_.push_back(kv + i * sequenceBytes);
    for (int64_t i = 0; i < setting_.sequences; ++i)
      sequences_.push_back({{&pages_[size(i)], setting_.tokens, setting_.kvType}, setting_.tokens - queries_, queries_,
                            q_.as<float>() + i * queries_ * width_, out_.as<float>() + i * queries_ * width_});
    cpu::attention(pool_, {setting_.numHeads, setting_.numKvHeads, setting_.headDim, width_, width_, 0}, sequences_);
  }

 private:
  ThreadPool& pool_;
  AttentionSetting setting_;
  int64_t queries_, width_;
  AlignedBuffer q_, out_;
  std::vector<const std::byte*> pages_;
  std::vector<cpu::AttentionSequence> sequences_;
};

}  // namespace

Samples measureMemoryRead(int64_t bytes, int repetitions, int numThreads) {
  expectPositive("bytes", bytes);
  expectPositive("repetitions", repetitions);
  ThreadPool pool(numThreads);
  // At least the cache's size twice over, read in turns, so that small requests are not served by the cache.
  const int64_t copies = numCopies(bytes);
  const AlignedBuffer buffer = storedCopies(pool, DataType::kFloat32, copies, (bytes + 3) / 4, 1);
  const int64_t stride = (bytes + 3) / 4 * 4;
  std::atomic<uint64_t> seen{0};
  return sample(repetitions, static_cast<double>(bytes), [&](int i) {
    const std::byte* start = buffer.data() + i % copies * stride;
    pool.parallelFor(bytes, std::min(kReadGrain, bytes / pool.numThreads() + 64), [&](int64_t begin, int64_t end) {
      seen.fetch_xor(cpu::kernels().readMemory(start + begin, size(end - begin)), std::memory_order_relaxed);
    });
  });
}

Samples measureMatmul(const MatmulSetting& setting, int repetitions, int numThreads) {
  expectPositive("tokens", setting.tokens);
  expectPositive("rows", setting.rows);
  expectPositive("cols", setting.cols);
  expectPositive("repetitions", repetitions);
  ThreadPool pool(numThreads);
  const int64_t bytes = setting.rows * static_cast<int64_t>(rowBytes(setting.weightType, setting.cols));
  const int64_t copies = numCopies(bytes);
  const AlignedBuffer weights = storedCopies(pool, setting.weightType, setting.rows, setting.cols, copies);
  const AlignedBuffer x = randomFloats(setting.tokens * setting.cols);
  const AlignedBuffer out(size(setting.tokens * setting.rows) * sizeof(float));
  const double flops = 2.0 * static_cast<double>(setting.tokens) * static_cast<double>(setting.rows * setting.cols);
  return sample(repetitions, flops, [&](int i) {
    const cpu::Matmul op{{setting.weightType, setting.cols, {{weights.data() + i % copies * bytes, setting.rows}}, 1},
                         nullptr, x.as<float>(), setting.cols, out.as<float>(), setting.rows};
    cpu::matmul(pool, {&op, 1}, setting.tokens);
  });
}

Samples measureAttention(const AttentionSetting& setting, int repetitions, int numThreads) {
  for (const int64_t value : {setting.sequences, setting.tokens, setting.numHeads, setting.numKvHeads, setting.headDim})
    expectPositive("sequences, tokens, heads and head size", value);
  if (setting.numHeads % setting.numKvHeads != 0)
    throw Error(ErrorCode::kBadInput, "expected numHeads to be a multiple of numKvHeads, got " +
                                          std::to_string(setting.numHeads) + " and " +
                                          std::to_string(setting.numKvHeads) + "; correct one of them");
  expectPositive("repetitions", repetitions);
  ThreadPool pool(numThreads);
  // A KV row is 2 * numKvHeads rows of headDim values, each padded as the cache pads a head.
  const int64_t headRows = setting.sequences * setting.tokens * setting.numKvHeads * 2;
  const int64_t bytes = headRows * static_cast<int64_t>(rowBytes(setting.kvType, setting.headDim));
  const int64_t copies = numCopies(bytes);
  const AlignedBuffer kv = storedCopies(pool, setting.kvType, headRows, setting.headDim, copies);
  const double pairs = static_cast<double>(setting.tokens) * static_cast<double>(setting.tokens + 1) / 2;
  const double flops = 4.0 * static_cast<double>(setting.sequences * setting.numHeads * setting.headDim) * pairs;
  AttentionRun run(pool, setting);
  return sample(repetitions, setting.phase == Phase::kPrefill ? flops : static_cast<double>(bytes),
                [&](int i) { run.run(kv.data() + i % copies * bytes); });
}

Samples measureLaunch(double pauseSeconds, int repetitions, int numThreads) {
  expectPositive("repetitions", repetitions);
  ThreadPool pool(numThreads);
  const int64_t ranges = kLaunchRangesPerThread * pool.numThreads();
  std::atomic<uint32_t> sink{0};
  const auto work = [&](int64_t begin, int64_t end) {
    for (int64_t range = begin; range < end; ++range) sink.fetch_add(busyWork(), std::memory_order_relaxed);
  };
  constexpr int kRunsAlone = 20;
  const std::vector<double> alone = sample(kRunsAlone, 1, [&](int) { work(0, ranges); }).seconds;
  const double ideal = *std::min_element(alone.begin(), alone.end()) / pool.numThreads();
  const int launches = pauseSeconds > 0 ? 1 : kLaunchesInARow;
  Samples samples{{}, static_cast<double>(launches)};
  for (int i = 0; i < repetitions; ++i) {
    std::this_thread::sleep_for(std::chrono::duration<double>(pauseSeconds));
    const auto start = Clock::now();
    for (int launch = 0; launch < launches; ++launch) pool.parallelFor(ranges, 1, work);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    samples.seconds.push_back(std::max(0.0, seconds - launches * ideal));
  }
  return samples;
}

}  // namespace flexplan::bench
