// A GPU made of threads: each stream is a queue that a thread works off with random delays, device memory is host
// memory of its own, and every rule that the real one has (what is pinned, what is device memory, what was freed) is
// checked.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cuda/cuda_api.h"
#include "test/check.h"

namespace flexplan::test {

// What the machine has, how it behaves, and what was done with it.
struct FakeMachine {
  std::vector<cuda::DeviceInfo> devices = {{"Fake GPU", int64_t{2} << 30, 90, 132}};
  int64_t othersBytes = 0;     // taken by other processes
  int64_t pinnableBytes = int64_t{1} << 40;
  int64_t mostDelayMicroseconds = 0;
  double bytesPerSecond = 0;   // of each stream's copies; 0: as fast as memcpy
  bool immediate = false;      // what is queued is done at once, by the thread that queues it
  int64_t failAtCall = -1;     // this call of copy, record or launch, and all after it, fail
  uint64_t seed = 1;

  std::atomic<int64_t> numCalls{0}, numLaunches{0}, numCopies{0}, numAllocations{0}, numPins{0}, numStreams{0};
  std::atomic<int64_t> numWaits{0};

  // Broken rules: said by whoever finds them, on any thread.
  void broken(const std::string& rule);
  std::vector<std::string> brokenRules() const;

  std::map<const std::byte*, int64_t> deviceMemory, pinnedMemory;
  std::set<const void*> streams, events;
  mutable std::mutex mutex;

  bool isDevice(const void* memory, int64_t bytes) const;
  bool isPinned(const void* memory, int64_t bytes) const;
  // Nothing that was taken is still held.
  bool isEmpty() const;

 private:
  std::vector<std::string> broken_;
};

// The machine that systemCudaApi() gives access to, and a fresh one in its place.
FakeMachine& fakeMachine();
FakeMachine& freshMachine();

// Queues work on a stream of the fake machine: what a kernel launch is here. The pointers must be device memory.
struct Operand {
  const void* memory;
  int64_t bytes;
};
void launchFake(cuda::Stream stream, const char* name, std::vector<Operand> operands, std::function<void()> work);

}  // namespace flexplan::test
