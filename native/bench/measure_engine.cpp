#include "bench/measure_engine.h"

#include <cstring>
#include <limits>
#include <thread>

#include "core/error.h"
#include "engine/kv_cache.h"
#include "engine/progress.h"
#include "tier/clock.h"
#include "tier/io_batch.h"

namespace flexplan::bench {
namespace {

constexpr int64_t kPage = static_cast<int64_t>(kPageBytes);
constexpr int64_t kUnlimited = std::numeric_limits<int64_t>::max();

void checkAtLeastOne(const char* name, int64_t value) {
  if (value < 1)
    throw Error(ErrorCode::kBadInput, std::string("expected ") + name + " of at least 1, got " + std::to_string(value) +
                                          "; check the measurement's options");
}

// Seconds of each repetition of `work`, after one that is not counted.
template <typename Work>
Samples repeat(int repetitions, double workOfOne, Work work) {
  checkAtLeastOne("repetitions", repetitions);
  Samples samples{{}, workOfOne};
  for (int n = -1; n < repetitions; ++n) {
    const double start = nowSeconds();
    work();
    if (n >= 0) samples.seconds.push_back(nowSeconds() - start);
  }
  return samples;
}

// A spill file, once written, and the memory that mirrors it.
struct DiskBench {
  explicit DiskBench(const DiskSetting& setting)
      : bytes(roundUp(setting.fileBytes, kPage)),
        requestBytes(roundUp(setting.requestBytes, kPage)),
        file(DirectFile::createSpill(setting.directory, bytes, "measuring the disk")),
        memory(static_cast<size_t>(bytes), kPageBytes) {
    std::memset(memory.data(), 1, memory.size());
    transfer(true);
  }

  void transfer(bool write) {
    IoBatch batch(io, nullptr);
    for (int64_t at = 0; at < bytes; at += requestBytes) {
      const int64_t size = std::min(requestBytes, bytes - at);
      write ? batch.write(file, at, size, memory.data() + at, size) : batch.read(file, at, size, memory.data() + at);
    }
    batch.start(flexplan::Phase::kPrefill);
    batch.wait();
  }

  const int64_t bytes;
  const int64_t requestBytes;
  IoPool io;
  DirectFile file;
  AlignedBuffer memory;
};

Samples measureDisk(const DiskSetting& setting, int repetitions, bool write) {
  checkAtLeastOne("fileBytes", setting.fileBytes);
  checkAtLeastOne("requestBytes", setting.requestBytes);
  DiskBench disk(setting);
  return repeat(repetitions, static_cast<double>(disk.bytes), [&] { disk.transfer(write); });
}

}  // namespace

Samples measureTask(int repetitions) {
  constexpr int64_t kHandOvers = 1000;
  Progress there, back;
  std::thread partner([&] {
    try {
      for (int64_t n = 1;; ++n) {
        there.waitFor(n);
        back.publish(n);
      }
    } catch (const Stopped&) {
    }
  });
  struct Join {
    Progress& there;
    std::thread& partner;
    ~Join() {
      there.stop();
      partner.join();
    }
  } const join{there, partner};
  int64_t handed = 0;
  return repeat(repetitions, 2.0 * kHandOvers, [&] {
    for (int64_t n = 0; n < kHandOvers; ++n) {
      there.publish(++handed);
      back.waitFor(handed);
    }
  });
}

Samples measureDiskRead(const DiskSetting& setting, int repetitions) {
  return measureDisk(setting, repetitions, false);
}
Samples measureDiskWrite(const DiskSetting& setting, int repetitions) {
  return measureDisk(setting, repetitions, true);
}

Samples measureLinkCopy(const LinkSetting& setting, int repetitions) {
  checkAtLeastOne("bytes", setting.bytes);
  Budgets budgets;
  for (const Tier tier : {Tier::kGpu, Tier::kCpu, Tier::kDisk})
    budgets[tier] = std::make_unique<MemoryBudget>(tier, kUnlimited);
  ThreadPool pool(1);
  const auto device = makeDevice(setting.device, pool, budgets, setting.bytesPerSecond, setting.bytesPerSecond);
  const TierBuffer onDevice = device->allocate(setting.bytes, "measuring the link");
  const TierBuffer onHost = TierBuffer::onHost(*budgets[Tier::kCpu], setting.bytes, "measuring the link");
  std::memset(onHost.data(), 1, static_cast<size_t>(setting.bytes));
  // Both ways once: no page is touched for the first time while it is timed.
  const CopyPiece there{onDevice.data(), onHost.data(), setting.bytes};
  const CopyPiece back{onHost.data(), onDevice.data(), setting.bytes};
  device->cpuToGpu().copy({&there, 1});
  return repeat(repetitions, static_cast<double>(setting.bytes), [&] {
    setting.link == Link::kCpuToGpu ? device->cpuToGpu().copy({&there, 1}) : device->gpuToCpu().copy({&back, 1});
  });
}

}  // namespace flexplan::bench
