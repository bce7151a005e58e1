#include "test/fake_cuda.h"

#include <chrono>
#include <cstring>

#include "core/error.h"

namespace flexplan::test {
namespace {

std::unique_ptr<FakeMachine> machine = std::make_unique<FakeMachine>();

bool isInside(const std::map<const std::byte*, int64_t>& blocks, const void* memory, int64_t bytes) {
  const auto* const begin = static_cast<const std::byte*>(memory);
  auto block = blocks.upper_bound(begin);
  if (block == blocks.begin()) return false;
  --block;
  return begin + bytes <= block->first + block->second;
}

class FakeStream {
 public:
  explicit FakeStream(FakeMachine& machine) : machine_(machine), random_(machine.seed++), thread_([this] { work(); }) {}
  ~FakeStream() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  void queue(std::function<void()> operation) {
    if (machine_.immediate) return operation();
    const std::lock_guard lock(mutex_);
    operations_.push_back(std::move(operation));
    changed_.notify_all();
  }

 private:
  void work() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return stopping_ || !operations_.empty(); });
      if (operations_.empty()) return;
      const auto operation = std::move(operations_.front());
      operations_.pop_front();
      lock.unlock();
      if (machine_.mostDelayMicroseconds > 0 && random_.below(4) == 0)
        std::this_thread::sleep_for(std::chrono::microseconds(random_.below(machine_.mostDelayMicroseconds)));
      operation();
      lock.lock();
    }
  }

  FakeMachine& machine_;
  Random random_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> operations_;
  bool stopping_ = false;
  std::thread thread_;
};

// An event stands for its latest record.
struct FakeEvent {
  std::mutex mutex;
  std::condition_variable changed;
  int64_t numRecorded = 0, numDone = 0;
};

class FakeCuda final : public cuda::CudaApi {
 public:
  explicit FakeCuda(FakeMachine& machine) : machine_(machine) {}

  std::vector<cuda::DeviceInfo> devices() override { return machine_.devices; }

  int64_t freeBytes() override {
    const std::lock_guard lock(machine_.mutex);
    int64_t used = machine_.othersBytes;
    for (const auto& [memory, bytes] : machine_.deviceMemory) used += bytes;
    return machine_.devices.front().totalBytes - used;
  }

  std::byte* allocate(int64_t bytes) override {
    ++machine_.numAllocations;
    if (bytes > freeBytes()) return nullptr;
    auto* const memory = static_cast<std::byte*>(std::aligned_alloc(4096, static_cast<size_t>((bytes + 4095) & ~4095)));
    // What nobody has written must not look like zeros.
    std::memset(memory, 0xdb, static_cast<size_t>(bytes));
    const std::lock_guard lock(machine_.mutex);
    machine_.deviceMemory[memory] = bytes;
    return memory;
  }
  void free(std::byte* memory) noexcept override {
    const std::lock_guard lock(machine_.mutex);
    machine_.deviceMemory.erase(memory);
    std::free(memory);
  }

  bool pin(std::byte* memory, int64_t bytes) override {
    ++machine_.numPins;
    if (reinterpret_cast<uintptr_t>(memory) % 4096 != 0 || bytes % 4096 != 0) machine_.broken("whole pages are pinned");
    const std::lock_guard lock(machine_.mutex);
    if (bytes > machine_.pinnableBytes) return false;
    machine_.pinnableBytes -= bytes;
    machine_.pinnedMemory[memory] = bytes;
    return true;
  }
  void unpin(std::byte* memory) noexcept override {
    const std::lock_guard lock(machine_.mutex);
    machine_.pinnableBytes += machine_.pinnedMemory[memory];
    machine_.pinnedMemory.erase(memory);
  }

  cuda::Stream createStream(cuda::Urgency) override {
    ++machine_.numStreams;
    auto* const stream = new FakeStream(machine_);
    const std::lock_guard lock(machine_.mutex);
    machine_.streams.insert(stream);
    return stream;
  }
  void destroyStream(cuda::Stream stream) noexcept override {
    delete static_cast<FakeStream*>(stream);
    const std::lock_guard lock(machine_.mutex);
    machine_.streams.erase(stream);
  }
  void finish(cuda::Stream stream) noexcept override {
    FakeEvent done;
    queueRecord(done, stream);
    std::unique_lock lock(done.mutex);
    done.changed.wait(lock, [&] { return done.numDone == done.numRecorded; });
  }
  cuda::Event createEvent() override {
    auto* const event = new FakeEvent;
    const std::lock_guard lock(machine_.mutex);
    machine_.events.insert(event);
    return event;
  }
  void destroyEvent(cuda::Event event) noexcept override {
    auto* const fake = static_cast<FakeEvent*>(event);
    {
      // The real one may be destroyed while it is pending; this one waits.
      std::unique_lock lock(fake->mutex);
      fake->changed.wait(lock, [&] { return fake->numDone == fake->numRecorded; });
    }
    delete fake;
    const std::lock_guard lock(machine_.mutex);
    machine_.events.erase(event);
  }

  void copy(void* to, const void* from, int64_t bytes, cuda::CopyKind kind, cuda::Stream stream) override {
    countCall("a copy");
    ++machine_.numCopies;
    checkSides(to, from, bytes, kind);
    const double seconds = machine_.bytesPerSecond > 0 ? static_cast<double>(bytes) / machine_.bytesPerSecond : 0;
    static_cast<FakeStream*>(stream)->queue([=] {
      if (seconds > 0) std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
      std::memcpy(to, from, static_cast<size_t>(bytes));
    });
    const void* const host = kind == cuda::CopyKind::kToDevice ? from : to;
    if (kind == cuda::CopyKind::kOnDevice || machine_.isPinned(host, bytes)) return;
    // From and to pageable memory the real one returns when it is done with it.
    FakeEvent done;
    queueRecord(done, stream);
    await(&done);
  }
  void record(cuda::Event event, cuda::Stream stream) override {
    countCall("a record");
    queueRecord(*static_cast<FakeEvent*>(event), stream);
  }
  bool isDone(cuda::Event event) override {
    auto* const fake = static_cast<FakeEvent*>(event);
    const std::lock_guard lock(fake->mutex);
    return fake->numDone == fake->numRecorded;
  }
  void await(cuda::Event event) override {
    ++machine_.numWaits;
    auto* const fake = static_cast<FakeEvent*>(event);
    std::unique_lock lock(fake->mutex);
    const int64_t wanted = fake->numRecorded;
    fake->changed.wait(lock, [&] { return fake->numDone >= wanted; });
  }

  void countCall(const char* what) {
    if (const int64_t call = machine_.numCalls++; machine_.failAtCall >= 0 && call >= machine_.failAtCall)
      throw Error(ErrorCode::kEngine, std::string("expected ") + what + " to succeed, got a fault that was planted");
  }

 private:
  static void queueRecord(FakeEvent& event, cuda::Stream stream) {
    {
      const std::lock_guard lock(event.mutex);
      ++event.numRecorded;
    }
    static_cast<FakeStream*>(stream)->queue([&event] {
      const std::lock_guard lock(event.mutex);
      ++event.numDone;
      event.changed.notify_all();
    });
  }
  void checkSides(const void* to, const void* from, int64_t bytes, cuda::CopyKind kind) {
    if (machine_.isDevice(to, bytes) != (kind != cuda::CopyKind::kToHost))
      machine_.broken("a copy goes where its kind says");
    if (machine_.isDevice(from, bytes) != (kind != cuda::CopyKind::kToDevice))
      machine_.broken("a copy comes from where its kind says");
  }

  FakeMachine& machine_;
};

}  // namespace

void FakeMachine::broken(const std::string& rule) {
  const std::lock_guard lock(mutex);
  broken_.push_back(rule);
}

std::vector<std::string> FakeMachine::brokenRules() const {
  const std::lock_guard lock(mutex);
  return broken_;
}

bool FakeMachine::isDevice(const void* memory, int64_t bytes) const {
  const std::lock_guard lock(mutex);
  return isInside(deviceMemory, memory, bytes);
}

bool FakeMachine::isPinned(const void* memory, int64_t bytes) const {
  const std::lock_guard lock(mutex);
  return isInside(pinnedMemory, memory, bytes);
}

bool FakeMachine::isEmpty() const {
  const std::lock_guard lock(mutex);
  return deviceMemory.empty() && pinnedMemory.empty() && streams.empty() && events.empty();
}

FakeMachine& fakeMachine() { return *machine; }

FakeMachine& freshMachine() {
  machine = std::make_unique<FakeMachine>();
  return *machine;
}

void launchFake(cuda::Stream stream, const char* name, std::vector<Operand> operands, std::function<void()> work) {
  FakeCuda(*machine).countCall(name);
  ++machine->numLaunches;
  for (const Operand& operand : operands)
    if (operand.memory && operand.bytes > 0 && !machine->isDevice(operand.memory, operand.bytes))
      machine->broken(std::string(name) + " works on device memory alone");
  static_cast<FakeStream*>(stream)->queue(std::move(work));
}

}  // namespace flexplan::test

namespace flexplan {
std::unique_ptr<cuda::CudaApi> cuda::systemCudaApi() { return std::make_unique<test::FakeCuda>(test::fakeMachine()); }
}  // namespace flexplan

// For the fake cuBLAS, a library of its own.
extern "C" __attribute__((visibility("default"))) void flexplanFakeQueue(void* stream, std::function<void()>* work);
void flexplanFakeQueue(void* stream, std::function<void()>* work) {
  flexplan::test::launchFake(stream, "cublasGemmEx", {}, *work);
}
