// The thread pool: every index once, exceptions, reuse, waking up after sleep, and what it refuses.
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "core/error.h"
#include "core/thread_pool.h"
#include "test/check.h"

namespace flexplan::test {
namespace {

void testCoverage(Checks& checks) {
  for (int threads = 1; threads <= 6; ++threads) {
    ThreadPool pool(threads);
    for (const int64_t count : {0, 1, 2, 7, 100, 1001})
      for (const int64_t grain : {0, 1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
        std::atomic<bool> small{true};
        pool.parallelFor(count, grain, [&](int64_t begin, int64_t end) {
          if (end - begin > std::max<int64_t>(grain, 1)) small = false;
          for (int64_t i = begin; i < end; ++i) ++seen[static_cast<size_t>(i)];
        });
        bool once = small;
        for (const auto& n : seen) once &= n == 1;
        checks.that(once, "each index once: " + std::to_string(threads) + " " + std::to_string(count) + " " +
                              std::to_string(grain));
      }
  }
}

void testManyLaunches(Checks& checks) {
  ThreadPool pool(4);
  std::atomic<int64_t> sum{0};
  constexpr int64_t kLaunches = 5000;
  for (int64_t i = 0; i < kLaunches; ++i) {
    // Now and then long enough for the workers to fall asleep.
    if (i % 1000 == 999) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    pool.parallelFor(8, 1, [&](int64_t begin, int64_t) { sum += begin; });
  }
  checks.that(sum == 28 * kLaunches, "launch after launch");
}

void testExceptions(Checks& checks) {
  for (const int threads : {1, 4}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 50; ++round) {
      std::string message;
      try {
        pool.parallelFor(100, 1, [&](int64_t begin, int64_t) {
          if (begin == 37) throw std::runtime_error("at 37");
        });
      } catch (const std::runtime_error& error) {
        message = error.what();
      }
      checks.that(message == "at 37", "exception of a body is rethrown");
      std::atomic<int> calls{0};
      pool.parallelFor(10, 1, [&](int64_t, int64_t) { ++calls; });
      checks.that(calls == 10, "usable after an exception");
    }
  }
}

void testParallelism(Checks& checks) {
  // Two bodies that wait for each other can only end if two threads run them.
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  pool.parallelFor(2, 1, [&](int64_t, int64_t) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
  });
  checks.that(arrived == 2, "bodies run at the same time");
}

void testSizes(Checks& checks) {
  checks.that(ThreadPool(1).numThreads() == 1 && ThreadPool(3).numThreads() == 3, "number of threads");
  checks.that(ThreadPool(0).numThreads() == std::min(numUsableCpus(), 1023), "0: one per CPU");
  for (const int wrong : {-1, 1024}) {
    std::string code;
    try {
      const ThreadPool pool(wrong);
    } catch (const Error& error) {
      code = error.codeName();
    }
    checks.that(code == "bad-input", "refuses " + std::to_string(wrong) + " threads");
  }
  ThreadPool pool(1);
  const auto caller = std::this_thread::get_id();
  bool inlined = true;
  pool.parallelFor(10, 1, [&](int64_t, int64_t) { inlined &= std::this_thread::get_id() == caller; });
  checks.that(inlined, "one thread: everything inline");
}

}  // namespace
}  // namespace flexplan::test

int main() {
  using namespace flexplan::test;
  Checks checks;
  testCoverage(checks);
  testManyLaunches(checks);
  testExceptions(checks);
  testParallelism(checks);
  testSizes(checks);
  return checks.finish();
}
