// Parallel loops for kernels: threads that stay, and a launch that costs microseconds.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <type_traits>
#include <vector>

namespace flexplan {

// One loop at a time: parallelFor may be called from any thread, but not from two at once, nor from inside a loop body.
class ThreadPool {
 public:
  // numThreads counts the calling thread; 0: one per CPU that this process may use. 1 runs everything inline.
  explicit ThreadPool(int numThreads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int numThreads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(begin, end) for disjoint ranges that cover [0, count), each of `grain` indices but the last, in any
  // order and on any of the threads. Returns when all are done. The first exception thrown by a body is rethrown here;
  // ranges not begun by then are skipped.
  template <typename Body>
  void parallelFor(int64_t count, int64_t grain, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run(count, grain, [](void* context, int64_t begin, int64_t end) { (*static_cast<Plain*>(context))(begin, end); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

  // As above with a grain that gives each thread a few ranges.
  template <typename Body>
  void parallelFor(int64_t count, Body&& body) {
    const int64_t ranges = int64_t{4} * numThreads();
    parallelFor(count, (count + ranges - 1) / ranges, body);
  }

 private:
  using Call = void (*)(void* context, int64_t begin, int64_t end);

  void run(int64_t count, int64_t grain, Call call, void* context);
  void work();
  void workerLoop();
  bool enter(int& seen);
  void leave();
  template <typename Ready>
  int waitUntil(Ready ready);

  // The loop in flight. Written only while it is closed and nobody is inside.
  Call call_ = nullptr;
  void* context_ = nullptr;
  int64_t count_ = 0;
  int64_t grain_ = 1;
  std::exception_ptr error_;
  std::atomic<bool> failed_{false};
  alignas(64) std::atomic<int64_t> next_{0};
  // Bits 0-9: workers inside the loop. Bit 10: the loop is open to workers. Above: number of the loop, wrapping around.
  alignas(64) std::atomic<int> state_{0};
  std::atomic<bool> stopping_{false};
  int spins_ = 0;
  std::vector<std::thread> workers_;
};

// CPUs that this process may use (its affinity), at least 1.
int numUsableCpus();

}  // namespace flexplan
