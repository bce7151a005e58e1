#include "bench/measure_device.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <thread>

#include "bench/operands.h"
#include "core/error.h"
#include "tier/clock.h"

namespace flexplan::bench {
namespace {

// Beyond the cache of any GPU.
constexpr int64_t kRotationBytes = int64_t{192} << 20;
// A sample is as many operations as take so long, so that starting and awaiting them weighs nothing.
constexpr double kSampleSeconds = 3e-3;
constexpr int kMostOperations = 200;
constexpr int kLaunchesInARow = 200;
constexpr double kUnpaced = std::numeric_limits<double>::infinity();

int64_t numCopies(int64_t bytes) { return kRotationBytes / bytes + 2; }

}  // namespace

DeviceMeter::DeviceMeter(DeviceKind kind) : pool_(0) {
  for (const Tier tier : {Tier::kGpu, Tier::kCpu, Tier::kDisk})
    budgets_[tier] = std::make_unique<MemoryBudget>(tier, std::numeric_limits<int64_t>::max());
  device_ = makeDevice(kind, pool_, budgets_, kUnpaced, kUnpaced);
}

DeviceMeter::~DeviceMeter() { device_->finish(); }

TierBuffer DeviceMeter::onDevice(const std::byte* values, int64_t bytes, int64_t copies) {
  TierBuffer memory = device_->allocate(bytes * copies, "measuring the device");
  for (int64_t n = 0; n < copies; ++n) {
    const CopyPiece piece{memory.data() + n * bytes, values, bytes};
    device_->cpuToGpu().copy({&piece, 1});
  }
  return memory;
}

// Times operation(i), i = 0, 1, 2 ...: first a few to warm up, then one sample to learn how many make a sample.
template <typename Operation>
Samples DeviceMeter::sample(int repetitions, double work, Operation operation) {
  expectPositive("repetitions", repetitions);
  int64_t next = 0;
  const auto secondsOf = [&](int count) {
    const double start = nowSeconds();
    for (int n = 0; n < count; ++n) operation(next++);
    device_->await(device_->mark());
    return (nowSeconds() - start) / count;
  };
  secondsOf(3);
  const double one = std::max(secondsOf(1), 1e-7);
  const int count = static_cast<int>(std::clamp(kSampleSeconds / one, 1.0, double{kMostOperations}));
  Samples samples{{}, work};
  for (int n = 0; n < repetitions; ++n) samples.seconds.push_back(secondsOf(count));
  return samples;
}

Samples DeviceMeter::memoryCopy(int64_t bytes, int repetitions) {
  expectPositive("bytes", bytes);
  const AlignedBuffer values = randomFloats((bytes + 3) / 4);
  const TierBuffer from = onDevice(values.data(), bytes, 1);
  const TierBuffer to = device_->allocate(bytes, "measuring the device");
  const CopyPiece piece{to.data(), from.data(), bytes};
  return sample(repetitions, 2.0 * static_cast<double>(bytes), [&](int64_t) { device_->copy({&piece, 1}); });
}

Samples DeviceMeter::matmul(const MatmulSetting& setting, int repetitions) {
  const auto& [tokens, rows, cols, type] = setting;
  for (const int64_t value : {tokens, rows, cols}) expectPositive("tokens, rows and cols", value);
  const int64_t bytes = rows * static_cast<int64_t>(rowBytes(type, cols));
  const int64_t copies = numCopies(bytes);
  const TierBuffer weights = onDevice(storedCopies(pool_, type, rows, cols, 1).data(), bytes, copies);
  const TierBuffer x = onDevice(randomFloats(tokens * cols).data(), tokens * cols * int64_t{sizeof(float)}, 1);
  const TierBuffer out = device_->allocate(tokens * rows * int64_t{sizeof(float)}, "measuring the device");
  ModelShape shape{};
  shape.hiddenSize = cols;
  const auto scratch = device_->reserve(shape, {tokens, 1});
  const double flops = 2.0 * static_cast<double>(tokens) * static_cast<double>(rows * cols);
  return sample(repetitions, flops, [&](int64_t n) {
    const cpu::Matmul op{{type, cols, {{weights.data() + n % copies * bytes, rows}}, 1},
                         nullptr, x.as<float>(), cols, out.as<float>(), rows};
    device_->matmul({&op, 1}, tokens);
  });
}

Samples DeviceMeter::attention(const AttentionSetting& setting, int repetitions) {
  for (const int64_t value : {setting.sequences, setting.tokens, setting.numHeads, setting.numKvHeads, setting.headDim})
    expectPositive("sequences, tokens, heads and head size", value);
  const bool prefill = setting.phase == Phase::kPrefill;
  const int64_t queries = prefill ? setting.tokens : 1;
  const int64_t width = setting.numHeads * setting.headDim;
  const int64_t headRows = setting.sequences * setting.tokens * setting.numKvHeads * 2;
  const int64_t bytes = headRows * static_cast<int64_t>(rowBytes(setting.kvType, setting.headDim));
  const int64_t copies = numCopies(bytes);
  const TierBuffer kv =
      onDevice(storedCopies(pool_, setting.kvType, headRows, setting.headDim, 1).data(), bytes, copies);
  const int64_t floats = setting.sequences * queries * width;
  const TierBuffer q = onDevice(randomFloats(floats).data(), floats * int64_t{sizeof(float)}, 1);
  const TierBuffer out = device_->allocate(floats * int64_t{sizeof(float)}, "measuring the device");
  const double pairs = static_cast<double>(setting.tokens) * static_cast<double>(setting.tokens + 1) / 2;
  const double flops = 4.0 * static_cast<double>(setting.sequences * width) * pairs;
  return sample(repetitions, prefill ? flops : static_cast<double>(bytes), [&](int64_t n) {
    std::vector<const std::byte*> pages;
    std::vector<cpu::AttentionSequence> sequences;
    for (int64_t s = 0; s < setting.sequences; ++s)
      pages.push_back(kv.data() + n % copies * bytes + s * (bytes / setting.sequences));
    for (int64_t s = 0; s < setting.sequences; ++s)
      sequences.push_back({{&pages[size(s)], setting.tokens, setting.kvType}, setting.tokens - queries, queries,
                           q.as<float>() + s * queries * width, out.as<float>() + s * queries * width});
    device_->attention({setting.numHeads, setting.numKvHeads, setting.headDim, width, width, 0}, sequences);
  });
}

Samples DeviceMeter::launch(double pauseSeconds, int repetitions) {
  expectPositive("repetitions", repetitions);
  constexpr int64_t kFloats = 64;
  const TierBuffer x = onDevice(randomFloats(2 * kFloats).data(), 2 * kFloats * int64_t{sizeof(float)}, 1);
  const int count = pauseSeconds > 0 ? 1 : kLaunchesInARow;
  Samples samples{{}, static_cast<double>(count)};
  for (int n = -1; n < repetitions; ++n) {
    if (pauseSeconds > 0) std::this_thread::sleep_for(std::chrono::duration<double>(pauseSeconds));
    const double start = nowSeconds();
    for (int launch = 0; launch < count; ++launch) device_->add(x.as<float>(), kFloats, x.as<float>() + kFloats);
    device_->await(device_->mark());
    if (n >= 0) samples.seconds.push_back(nowSeconds() - start);
  }
  return samples;
}

}  // namespace flexplan::bench
