#include "core/thread_pool.h"

#include <algorithm>
#include <string>
#include <utility>

#if defined(__linux__)
#include <sched.h>
#endif

#include "core/error.h"
#include "core/relax.h"

namespace flexplan {
namespace {

constexpr int kInsideMask = 0x3ff;
constexpr int kOpen = 0x400;
constexpr int kMaxThreads = kInsideMask;
// Some 30 microseconds of waiting without a system call: longer than the gap between two kernels of one layer.
constexpr int kSpins = 1000;

int checkedThreads(int numThreads) {
  if (numThreads < 0 || numThreads > kMaxThreads)
    throw Error(ErrorCode::kBadInput, "expected 0 to " + std::to_string(kMaxThreads) + " threads, got " +
                                          std::to_string(numThreads) + "; use 0 for one per CPU");
  return numThreads == 0 ? std::min(numUsableCpus(), kMaxThreads) : numThreads;
}

// The counter of loops wraps around instead of overflowing.
int nextLoop(int state) { return static_cast<int>((static_cast<unsigned>(state) & ~unsigned{kOpen}) + 2u * kOpen); }

}  // namespace

int numUsableCpus() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

ThreadPool::ThreadPool(int numThreads) {
  const int total = checkedThreads(numThreads);
  // Waiting threads that outnumber the CPUs would keep the working ones from running.
  spins_ = total <= numUsableCpus() ? kSpins : 0;
  workers_.reserve(static_cast<size_t>(total - 1));
  for (int i = 1; i < total; ++i) workers_.emplace_back([this] { workerLoop(); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  state_.store(nextLoop(state_.load()));
  state_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int64_t count, int64_t grain, Call call, void* context) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  if (workers_.empty() || count <= grain) {
    for (int64_t begin = 0; begin < count; begin += grain) call(context, begin, std::min(begin + grain, count));
    return;
  }
  call_ = call;
  context_ = context;
  count_ = count;
  grain_ = grain;
  next_.store(0, std::memory_order_relaxed);
  failed_.store(false, std::memory_order_relaxed);
  state_.store(nextLoop(state_.load(std::memory_order_relaxed)) | kOpen);
  state_.notify_all();
  work();
  // Closing keeps late workers out, so only those that have begun are waited for.
  state_.fetch_and(~kOpen);
  waitUntil([](int state) { return (state & kInsideMask) == 0; });
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void ThreadPool::work() {
  try {
    for (;;) {
      const int64_t begin = next_.fetch_add(grain_, std::memory_order_relaxed);
      if (begin >= count_ || failed_.load(std::memory_order_relaxed)) return;
      call_(context_, begin, std::min(begin + grain_, count_));
    }
  } catch (...) {
    if (!failed_.exchange(true)) error_ = std::current_exception();
  }
}

void ThreadPool::workerLoop() {
  int seen = 0;
  while (!stopping_.load()) {
    if (enter(seen)) {
      work();
      leave();
    }
    waitUntil([&](int state) { return stopping_.load() || (state & ~kInsideMask & ~kOpen) != seen; });
  }
}

// Joins the open loop unless this worker was in it before. `seen`: the loop last joined or found closed.
bool ThreadPool::enter(int& seen) {
  int state = state_.load();
  for (;;) {
    const int loop = state & ~kInsideMask & ~kOpen;
    if (loop == seen) return false;
    if ((state & kOpen) == 0) {
      seen = loop;
      return false;
    }
    if (state_.compare_exchange_weak(state, state + 1)) {
      seen = loop;
      return true;
    }
  }
}

void ThreadPool::leave() {
  const int before = state_.fetch_sub(1);
  if ((before & kInsideMask) == 1 && (before & kOpen) == 0) state_.notify_all();
}

// Spins for a while, then sleeps until state_ changes, until ready(state).
template <typename Ready>
int ThreadPool::waitUntil(Ready ready) {
  for (int spin = 0;; ++spin) {
    const int state = state_.load();
    if (ready(state)) return state;
    if (spin < spins_) {
      relax();
    } else {
      state_.wait(state);
    }
  }
}

}  // namespace flexplan
