#include "test/cuda_emulation/emulation.h"

#include <algorithm>
#include <csetjmp>
#include <deque>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

#include <ucontext.h>

#include "test/check.h"

#if defined(__SANITIZE_ADDRESS__)
#include <dlfcn.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace flexplan::cuda::emulation {
namespace {

constexpr size_t kStackBytes = size_t{192} << 10;
constexpr int kGarbage = 0xff;  // NaN in every floating-point format

struct Copy {
  void* to;
  const void* from;
};

struct Fiber {
  std::unique_ptr<std::byte[]> stack;
  ucontext_t context;
  std::jmp_buf resume;
  bool started, done;
  Position position;
  // Waits while *gate == gateValue.
  const uint64_t* gate;
  uint64_t gateValue;
  std::vector<Copy> uncommitted;
  std::deque<std::vector<Copy>> groups;
};

// A barrier of `size` threads; the generation counts how often it has opened.
struct Barrier {
  unsigned size = 0, arrived = 0;
  uint64_t generation = 0;
};

struct Warp {
  Barrier barrier;
  // Two, because the fastest lane may be one exchange ahead of the slowest.
  std::array<std::array<std::byte, kWarpSize * kMostLaneBytes>, 2> values;
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Barrier barrier;
  std::unique_ptr<std::byte[]> shared;
  const std::function<void()>* body = nullptr;
  Fiber* running = nullptr;
  std::jmp_buf scheduler;
#if defined(__SANITIZE_ADDRESS__)
  const void* schedulerStack = nullptr;
  size_t schedulerStackBytes = 0;
#endif
};

// One block runs at a time: kernels are launched by one thread.
Block block;
Order threadOrder = Order::kForward;
test::Random shuffle(0);

// The sanitizer's own longjmp forgets all that it knows of the stack it leaves: red zones are lost, and it takes far
// longer than what the kernel does between two switches. It is told of each switch below, so libc's may be used.
#if defined(__SANITIZE_ADDRESS__)
using Jump = void (*)(std::jmp_buf, int);
const auto jump = reinterpret_cast<Jump>(dlsym(dlopen("libc.so.6", RTLD_LAZY), "_longjmp"));
#else
constexpr auto jump = _longjmp;
#endif

// The sanitizer has to know which stack is in use.
void beforeSwitch([[maybe_unused]] void** save, [[maybe_unused]] const void* stack, [[maybe_unused]] size_t bytes) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(save, stack, bytes);
#endif
}
void afterSwitch([[maybe_unused]] void* save, [[maybe_unused]] bool fromScheduler) {
#if defined(__SANITIZE_ADDRESS__)
  if (fromScheduler)
    __sanitizer_finish_switch_fiber(save, &block.schedulerStack, &block.schedulerStackBytes);
  else
    __sanitizer_finish_switch_fiber(save, nullptr, nullptr);
#endif
}
void beforeScheduler([[maybe_unused]] void** save) {
#if defined(__SANITIZE_ADDRESS__)
  beforeSwitch(save, block.schedulerStack, block.schedulerStackBytes);
#endif
}

void enter() {
  afterSwitch(nullptr, true);
  (*block.body)();
  block.running->done = true;
  beforeScheduler(nullptr);
  jump(block.scheduler, 1);
}

void resume(Fiber& fiber) {
  block.running = &fiber;
  void* fakeStack = nullptr;
  beforeSwitch(&fakeStack, fiber.stack.get(), kStackBytes);
  if (_setjmp(block.scheduler) == 0) {
    if (std::exchange(fiber.started, true)) jump(fiber.resume, 1);
    setcontext(&fiber.context);
  }
  afterSwitch(fakeStack, false);
}

void yield() {
  void* fakeStack = nullptr;
  Fiber* const self = block.running;
  beforeScheduler(&fakeStack);
  if (_setjmp(self->resume) == 0) jump(block.scheduler, 1);
  afterSwitch(fakeStack, true);
}

void wait(Barrier& barrier) {
  const uint64_t generation = barrier.generation;
  if (++barrier.arrived == barrier.size) {
    barrier.arrived = 0;
    ++barrier.generation;
    return;
  }
  Fiber& self = *block.running;
  self.gate = &barrier.generation;
  self.gateValue = generation;
  yield();
  self.gate = nullptr;
}

void start(Fiber& fiber) {
  if (!fiber.stack) fiber.stack = std::make_unique_for_overwrite<std::byte[]>(kStackBytes);
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, enter, 0);
  fiber.started = fiber.done = false;
  fiber.gate = nullptr;
  fiber.uncommitted.clear();
  fiber.groups.clear();
}

void prepare(unsigned threads, size_t sharedBytes) {
  block.fibers.resize(threads);
  for (Fiber& fiber : block.fibers) start(fiber);
  block.warps.assign((threads + kWarpSize - 1) / kWarpSize, Warp{});
  for (Warp& warp : block.warps) warp.barrier.size = kWarpSize;
  block.warps.back().barrier.size = threads - static_cast<unsigned>((block.warps.size() - 1) * kWarpSize);
  block.barrier = {threads, 0, 0};
  block.shared = std::make_unique_for_overwrite<std::byte[]>(sharedBytes);
  std::memset(block.shared.get(), kGarbage, sharedBytes);
}

// 0..count - 1 in the order of turns, shuffled anew each time.
std::vector<size_t> orderTurns(size_t count) {
  std::vector<size_t> turns(count);
  std::iota(turns.begin(), turns.end(), size_t{0});
  if (threadOrder == Order::kBackward) std::reverse(turns.begin(), turns.end());
  if (threadOrder == Order::kShuffled)
    for (size_t i = count; i > 1; --i) std::swap(turns[i - 1], turns[shuffle.bits() % i]);
  return turns;
}

// Gives each lane that can go on a turn; whether there was one.
bool runLanes(size_t warp, const std::vector<size_t>& lanes) {
  bool progress = false;
  for (const size_t lane : lanes) {
    const size_t thread = warp * kWarpSize + lane;
    if (thread >= block.fibers.size()) continue;
    Fiber& fiber = block.fibers[thread];
    if (fiber.done || (fiber.gate != nullptr && *fiber.gate == fiber.gateValue)) continue;
    progress = true;
    resume(fiber);
  }
  return progress;
}

// Each warp runs as far as it gets before the next has its turn: what keeps them together is the block's barriers
// alone.
void runBlock() {
  const std::vector<size_t> warps = orderTurns(block.warps.size()), lanes = orderTurns(kWarpSize);
  for (bool progress = true; progress;) {
    progress = false;
    for (const size_t warp : warps)
      while (runLanes(warp, lanes)) progress = true;
  }
  for (const Fiber& fiber : block.fibers)
    if (!fiber.done) throw std::logic_error("expected all threads to reach the barrier, got some that never do");
}

void finish(const std::vector<Copy>& group) {
  for (const Copy& copy : group) {
    if (copy.from) std::memcpy(copy.to, copy.from, 16);
    if (!copy.from) std::memset(copy.to, 0, 16);
  }
}

}  // namespace

const Position& current() { return block.running->position; }
std::byte* sharedMemory() { return block.shared.get(); }

void setOrder(Order order, uint64_t seed) {
  threadOrder = order;
  shuffle = test::Random(seed);
}

void run(dim3 grid, unsigned threads, size_t sharedBytes, const std::function<void()>& body) {
  block.body = &body;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        prepare(threads, sharedBytes);
        for (unsigned t = 0; t < threads; ++t)
          block.fibers[t].position = {{t, 0, 0}, {x, y, z}, {threads, 1, 1}, grid};
        runBlock();
      }
}

void syncThreads() { wait(block.barrier); }

const std::byte* exchangeBytes(const void* mine, size_t bytes) {
  const unsigned thread = current().thread.x;
  Warp& warp = block.warps[thread / kWarpSize];
  auto& values = warp.values[warp.barrier.generation % 2];
  std::memcpy(values.data() + thread % kWarpSize * bytes, mine, bytes);
  wait(warp.barrier);
  return values.data();
}

void copyAsync(void* to, const void* from) {
  std::memset(to, kGarbage, 16);
  block.running->uncommitted.push_back({to, from});
}
void copyAsyncCommit() { block.running->groups.push_back(std::exchange(block.running->uncommitted, {})); }
void copyAsyncWait(int pending) {
  auto& groups = block.running->groups;
  for (; groups.size() > static_cast<size_t>(pending); groups.pop_front()) finish(groups.front());
}

}  // namespace flexplan::cuda::emulation
