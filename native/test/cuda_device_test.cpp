// The host side of the CUDA device, part by part, on the fake machine (fake_cuda.h): memory, uploads, links, marks.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>
#include <thread>

#include "bench/measure_device.h"
#include "core/error.h"
#include "core/half.h"
#include "cuda/arena.h"
#include "cuda/cuda_link.h"
#include "cuda/upload_ring.h"
#include "model/device.h"
#include "test/check.h"
#include "test/cuda_engine_test.h"
#include "test/fake_cuda.h"

namespace flexplan::test {
namespace {

using Budgets = PerTier<std::unique_ptr<MemoryBudget>>;

constexpr int64_t kMiB = int64_t{1} << 20;

Budgets budgetsOf(int64_t gpuBytes, int64_t cpuBytes) {
  Budgets budgets;
  budgets[Tier::kGpu] = std::make_unique<MemoryBudget>(Tier::kGpu, gpuBytes);
  budgets[Tier::kCpu] = std::make_unique<MemoryBudget>(Tier::kCpu, cpuBytes);
  return budgets;
}

std::string messageOf(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return std::string(error.codeName()) + ": " + error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

void checkMachine(Checks& check, const std::string& what) {
  for (const std::string& rule : fakeMachine().brokenRules()) check.that(false, what + ": broken rule: " + rule);
  check.that(fakeMachine().isEmpty(), what + ": everything taken was given back");
}

void testArena(Checks& check) {
  FakeMachine& machine = freshMachine();
  const auto api = cuda::systemCudaApi();
  Random random(3);
  {
    cuda::Arena arena(*api, machine.devices.front(), 4 * kMiB);
    check.that(arena.reservedBytes() == 4 * kMiB && machine.numAllocations == 1, "arena: taken at once, as planned");
    std::map<std::byte*, int64_t> pieces;
    int numRefused = 0;
    for (int n = 0; n < 4000; ++n) {
      if (random.below(2) == 0 && !pieces.empty()) {
        const auto piece = std::next(pieces.begin(), random.below(static_cast<int64_t>(pieces.size())));
        arena.give(piece->first);
        pieces.erase(piece);
        continue;
      }
      const int64_t bytes = 1 + random.below(200000), alignment = random.below(2) ? 64 : 4096;
      try {
        std::byte* const piece = arena.take(bytes, alignment, "a piece");
        const auto after = pieces.lower_bound(piece);
        check.that(after == pieces.end() || piece + bytes <= after->first, "arena: pieces do not overlap");
        check.that(after == pieces.begin() || std::prev(after)->first + std::prev(after)->second <= piece,
                   "arena: pieces do not overlap");
        check.that(reinterpret_cast<uintptr_t>(piece) % static_cast<uintptr_t>(alignment) == 0, "arena: alignment");
        check.that(machine.isDevice(piece, bytes), "arena: pieces lie inside");
        pieces[piece] = bytes;
      } catch (const Error&) {
        ++numRefused;
      }
    }
    check.that(numRefused > 0, "arena: the test has filled it");
    for (const auto& [piece, bytes] : pieces) arena.give(piece);
    arena.give(arena.take(4 * kMiB, 64, "all of it"));
    check.that(machine.numAllocations == 1, "arena: nothing is allocated later");
  }
  {
    cuda::Arena arena(*api, machine.devices.front(), int64_t{1} << 60);
    check.that(arena.reservedBytes() == 0, "arena without plan: nothing is taken ahead");
    arena.take(3 * kMiB, 64, "a piece");
    arena.take(100 * kMiB, 64, "a large piece");
    check.that(arena.reservedBytes() >= 103 * kMiB && arena.reservedBytes() < 200 * kMiB,
               "arena without plan: it grows by what is asked for");
  }
  checkMachine(check, "arena");
}

void testShortfall(Checks& check) {
  FakeMachine& machine = freshMachine();
  machine.othersBytes = machine.devices.front().totalBytes - 400 * kMiB;
  const auto api = cuda::systemCudaApi();
  cuda::Arena arena(*api, machine.devices.front(), 1024 * kMiB);
  check.that(arena.reservedBytes() > 0 && arena.reservedBytes() < 400 * kMiB,
             "shortfall: what other programs hold is left to them");
  const std::string message = messageOf([&] { arena.take(500 * kMiB, 64, "weights"); });
  for (const std::string& part :
       {std::string("out-of-memory"), std::to_string(500 * kMiB), std::string("weights"),
        std::to_string(500 * kMiB - arena.reservedBytes()) + " too few", std::to_string(1024 * kMiB) + " planned",
        std::string("Fake GPU"), std::string("--gpu-memory")})
    check.that(contains(message, part), "shortfall: the error names " + part + ", got " + message);
}

// Queued readers see what was put for them, however far the ring has gone on by the time they run.
void testUploads(Checks& check) {
  FakeMachine& machine = freshMachine();
  machine.mostDelayMicroseconds = 300;
  const auto api = cuda::systemCudaApi();
  std::byte* const device = api->allocate(cuda::UploadRing::kBytes);
  std::byte* const host = static_cast<std::byte*>(std::aligned_alloc(4096, cuda::UploadRing::kBytes));
  api->pin(host, cuda::UploadRing::kBytes);
  int numWrong = 0, numRead = 0;
  int64_t numSends = 0;
  {
    const cuda::OwnedStream stream(*api, cuda::Urgency::kUrgent);
    cuda::UploadRing ring(*api, stream, host, device);
    Random random(4);
    std::vector<int32_t> again(1000);
    std::iota(again.begin(), again.end(), 7);
    for (int n = 0; n < 300; ++n) {
      std::vector<int32_t> first(static_cast<size_t>(1 + random.below(200000))), second(first.size() % 977 + 1);
      std::iota(first.begin(), first.end(), n);
      std::iota(second.begin(), second.end(), -n);
      const int32_t* const known = ring.putAgain(std::span<const int32_t>(again));
      const int32_t* const one = ring.put(std::span<const int32_t>(first));
      const int32_t* const two = ring.put(std::span<const int32_t>(second));
      ring.send();
      launchFake(stream, "reader", {{one, 4}, {two, 4}, {known, 4}}, [=, &again, &numWrong, &numRead] {
        ++numRead;
        numWrong += !std::equal(first.begin(), first.end(), one) || !std::equal(second.begin(), second.end(), two) ||
                    !std::equal(again.begin(), again.end(), known);
      });
    }
    numSends = ring.numSends();
    const std::vector<int32_t> tooMany(cuda::UploadRing::kSegmentBytes / 4 + 1);
    check.that(contains(messageOf([&] { ring.put(std::span<const int32_t>(tooMany)); }), "unsupported"),
               "uploads: what no segment holds is refused");
    const int64_t before = ring.numSends();
    ring.send();
    ring.send();
    ring.putAgain(std::span<const int32_t>(again));
    ring.send();
    const int64_t found = ring.numSends();
    ring.putAgain(std::span<const int32_t>(again));
    ring.send();
    check.that(found <= before + 2 && ring.numSends() == found, "uploads: what was sent is found, not sent twice");
    const cuda::OwnedEvent end(*api);
    api->record(end, stream);
    api->await(end);
  }
  check.that(numRead == 300 && numWrong == 0, "uploads: " + std::to_string(numWrong) + " readers saw something else");
  check.that(numSends >= 300 && numSends < 700, "uploads: arrays of one launch cross together");
  api->unpin(host);
  api->free(device);
  std::free(host);
  checkMachine(check, "uploads");
}

// Random pieces in both directions from several threads at once, neighbours on the device and others.
void testLinks(Checks& check) {
  FakeMachine& machine = freshMachine();
  machine.mostDelayMicroseconds = 200;
  Budgets budgets = budgetsOf(512 * kMiB, 512 * kMiB);
  ThreadPool pool(1);
  {
    const auto device = makeCudaDevice(pool, budgets);
    constexpr int kThreads = 4;
    constexpr int64_t kBytes = 3 * kMiB;
    std::atomic<int> numWrong{0};
    std::vector<std::thread> threads;
    const int64_t copiesBefore = machine.numCopies;
    std::atomic<int64_t> numPieces{0};
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        Random random(static_cast<uint64_t>(t) + 10);
        const TierBuffer onDevice = device->allocate(kBytes, "there");
        const TierBuffer from = TierBuffer::onHost(*budgets[Tier::kCpu], kBytes, "here");
        const TierBuffer back = TierBuffer::onHost(*budgets[Tier::kCpu], kBytes, "here again");
        for (int64_t n = 0; n < kBytes; ++n) from.data()[n] = static_cast<std::byte>(random.bits());
        std::vector<CopyPiece> there, home;
        // A shuffle of the host's pieces: neighbours on the device are none on the host.
        std::vector<std::pair<int64_t, int64_t>> spans;
        for (int64_t at = 0; at < kBytes;) {
          const int64_t most = random.below(10) == 0 ? 600000 : random.below(3) == 0 ? 5000 : 40;
          const int64_t bytes = std::min(kBytes - at, 1 + random.below(most));
          spans.emplace_back(at, bytes);
          at += bytes;
        }
        for (size_t n = spans.size(); n > 1; --n)
          std::swap(spans[n - 1], spans[static_cast<size_t>(random.below(static_cast<int64_t>(n)))]);
        int64_t at = 0;
        for (const auto& [offset, bytes] : spans) {
          there.push_back({onDevice.data() + at, from.data() + offset, bytes});
          home.push_back({back.data() + offset, onDevice.data() + at, bytes});
          at += bytes;
        }
        numPieces += static_cast<int64_t>(there.size());
        device->cpuToGpu().copy(there);
        device->gpuToCpu().copy(home);
        numWrong += std::memcmp(from.data(), back.data(), kBytes) != 0;
      });
    }
    for (std::thread& thread : threads) thread.join();
    check.that(numWrong == 0, "links: every byte arrives, both ways");
    check.that(machine.numCopies - copiesBefore < numPieces, "links: small neighbours cross together, " +
                                                                 std::to_string(machine.numCopies) + " copies of " +
                                                                 std::to_string(2 * numPieces) + " pieces");
  }
  checkMachine(check, "links");
}

// A small copy does not wait for a large one that began before it.
void testUrgentCopies(Checks& check) {
  FakeMachine& machine = freshMachine();
  Budgets budgets = budgetsOf(512 * kMiB, 512 * kMiB);
  ThreadPool pool(1);
  {
    const auto device = makeCudaDevice(pool, budgets);
    const TierBuffer onDevice = device->allocate(128 * kMiB, "there");
    const TierBuffer onHost = TierBuffer::onHost(*budgets[Tier::kCpu], 128 * kMiB, "here");
    machine.bytesPerSecond = 512e6;
    std::atomic<bool> largeIsDone{false};
    std::thread large([&] {
      const CopyPiece piece{onDevice.data(), onHost.data(), 100 * kMiB};
      device->cpuToGpu().copy({&piece, 1});
      largeIsDone = true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const CopyPiece piece{onDevice.data() + 100 * kMiB, onHost.data(), 4096};
    device->cpuToGpu().copy({&piece, 1});
    check.that(!largeIsDone, "links: a small copy passes a large one");
    large.join();
  }
  checkMachine(check, "urgent copies");
}

void testPinning(Checks& check) {
  FakeMachine& machine = freshMachine();
  machine.pinnableBytes = 20 * kMiB;
  Budgets budgets = budgetsOf(512 * kMiB, 512 * kMiB);
  ThreadPool pool(2);
  {
    const auto device = makeCudaDevice(pool, budgets);
    const TierBuffer small = TierBuffer::onHost(*budgets[Tier::kCpu], 100, "small");
    check.that(machine.isPinned(small.data(), 100), "pinning: the cpu budget's memory is pinned");
    const TierBuffer large = TierBuffer::onHost(*budgets[Tier::kCpu], 30 * kMiB, "large");
    check.that(!machine.isPinned(large.data(), 30 * kMiB), "pinning: beyond the limit memory stays pageable");
    const TierBuffer onDevice = device->allocate(30 * kMiB, "there");
    std::memset(large.data(), 5, 30 * kMiB);
    const CopyPiece there{onDevice.data(), large.data(), 30 * kMiB};
    device->cpuToGpu().copy({&there, 1});
    check.that(std::memcmp(onDevice.data(), large.data(), 30 * kMiB) == 0, "pinning: pageable memory crosses too");
  }
  const TierBuffer after = TierBuffer::onHost(*budgets[Tier::kCpu], 100, "after");
  check.that(!machine.isPinned(after.data(), 100), "pinning: it ends with the device");
  checkMachine(check, "pinning");
}

// The kernels find a row's page by shifting.
void testPageRows(Checks& check) {
  freshMachine();
  Budgets budgets = budgetsOf(512 * kMiB, 512 * kMiB);
  ThreadPool pool(1);
  {
    const auto device = makeCudaDevice(pool, budgets);
    const cpu::AttentionSequence sequence{{nullptr, 96, DataType::kFloat16}, 200, 1, nullptr, nullptr};
    const std::string message = messageOf([&] { device->attention({1, 1, 8, 8, 8, 0}, {&sequence, 1}); });
    check.that(contains(message, "power of two rows on a GPU, got 96"), "pages of 96 rows: " + message);
  }
  checkMachine(check, "pages");
}

void testMarks(Checks& check) {
  FakeMachine& machine = freshMachine();
  machine.mostDelayMicroseconds = 400;
  Budgets budgets = budgetsOf(512 * kMiB, 512 * kMiB);
  ThreadPool pool(1);
  {
    const auto device = makeCudaDevice(pool, budgets);
    const TierBuffer memory = device->allocate(2 * 4096, "numbers");
    auto* const ones = memory.as<float>();
    float* const sums = ones + 1024;
    std::fill(ones, ones + 1024, 1.0f);
    std::fill(sums, sums + 1024, 0.0f);
    std::vector<int64_t> marks;
    int numEarly = 0;
    for (int n = 0; n < 400; ++n) {
      device->add(ones, 1024, sums);
      marks.push_back(device->mark());
      // Old marks, whose events have been used again since, too.
      const auto wanted = static_cast<size_t>(std::max(0, n - n % 7 * 15));
      if (n % 5 != 0) continue;
      device->await(marks[wanted]);
      numEarly += sums[1023] < static_cast<float>(wanted + 1);
    }
    check.that(numEarly == 0, "marks: what was awaited is done");
    check.that(std::ranges::is_sorted(marks) && marks.front() < marks.back(), "marks: they count on");
    check.that(device->mark() == marks.back(), "marks: nothing new, no new mark");
    std::vector<float> scratch;
    check.that(device->view(sums, 1024, scratch)[1023] == 400.0f, "marks: a view waits for all");
  }
  checkMachine(check, "marks");
}

void testNoDevice(Checks& check) {
  ThreadPool pool(1);
  Budgets budgets = budgetsOf(512 * kMiB, 512 * kMiB);
  freshMachine().devices.clear();
  std::string message = messageOf([&] { makeCudaDevice(pool, budgets); });
  check.that(contains(message, "no-device") && contains(message, "nvidia-smi"), "no device: none, got " + message);
  freshMachine().devices = {{"Tesla P100", 8 << 30, 60, 56}};
  message = messageOf([&] { makeCudaDevice(pool, budgets); });
  check.that(contains(message, "no-device") && contains(message, "Tesla P100 of 6.0"),
             "no device: too old, got " + message);
  freshMachine();
  setenv("FLEXPLAN_CUBLAS", "/nowhere/libcublas.so", 1);
  message = messageOf([&] { makeCudaDevice(pool, budgets); });
  check.that(contains(message, "bad-input") && contains(message, "/nowhere/libcublas.so"),
             "no cuBLAS where it was named, got " + message);
  setenv("FLEXPLAN_CUBLAS", "0", 1);
  checkMachine(check, "no device");
}

// Every shape of product that the engine makes, by our kernels and by cuBLAS, against plain sums.
void testMatmul(Checks& check, const char* cublas) {
  setenv("FLEXPLAN_CUBLAS", cublas, 1);
  FakeMachine& machine = freshMachine();
  Budgets budgets = budgetsOf(512 * kMiB, 512 * kMiB);
  ThreadPool pool(1);
  Random random(9);
  {
    const auto device = makeCudaDevice(pool, budgets);
    ModelShape shape{};
    shape.hiddenSize = shape.ffnSize = shape.embeddingSize = 100;
    shape.numHeads = shape.headDim = 10;
    shape.vocabSize = 100;
    const auto scratch = device->reserve(shape, {40, 40});
    for (const DataType dtype : {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16}) {
      for (const int64_t tokens : {1, 16, 17, 40}) {
        const int64_t rows = 37, cols = 50, xStride = 53, outStride = 41;
        const TierBuffer memory = device->allocate(kMiB, "operands");
        auto* const x = memory.as<float>();
        float* const out = x + 5000;
        float* const bias = out + 5000;
        std::byte* const weight = memory.data() + kMiB / 2;
        const auto values = random.vector(rows * cols), biases = random.vector(rows),
                   inputs = random.vector(tokens * xStride);
        cpu::fromFloat(pool, dtype, values.data(), rows, cols, weight);
        std::ranges::copy(inputs, x);
        std::ranges::copy(biases, bias);
        const auto rowSize = static_cast<int64_t>(rowBytes(dtype, cols));
        const cpu::Matmul with{
            {dtype, cols, {{weight, 20}, {weight + 20 * rowSize, 0}, {weight + 20 * rowSize, 17}}, 3},
            bias,
            x,
            xStride,
            out,
            outStride};
        cpu::Matmul without = with;
        without.bias = nullptr;
        without.out = out + 2500;
        const cpu::Matmul ops[] = {with, without};
        device->matmul(ops, tokens);
        std::vector<float> host;
        const auto got = device->view(out, 5000, host);
        double worst = 0;
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t r = 0; r < rows; ++r) {
            double sum = 0;
            for (int64_t c = 0; c < cols; ++c)
              sum += static_cast<double>(values[static_cast<size_t>(r * cols + c)]) *
                     inputs[static_cast<size_t>(t * xStride + c)];
            const auto at = static_cast<size_t>(t * outStride + r);
            worst = std::max(worst, std::abs(got[at] - sum - biases[static_cast<size_t>(r)]));
            worst = std::max(worst, std::abs(got[at + 2500] - sum));
          }
        }
        // Both factors are rounded: cols products of numbers up to 1.
        const double unit = dtype == DataType::kFloat32 ? 0x1p-22 : dtype == DataType::kFloat16 ? 0x1p-10 : 0x1p-7;
        check.that(worst < unit * std::sqrt(static_cast<double>(cols)) * 2,
                   std::string("matmul: ") + dataTypeName(dtype) + ", " + std::to_string(tokens) + " tokens, off by " +
                       std::to_string(worst) + (*cublas == '0' ? "" : ", cuBLAS"));
      }
    }
  }
  checkMachine(check, "matmul");
  check.that(machine.numLaunches > 0, "matmul: launches");
  setenv("FLEXPLAN_CUBLAS", "0", 1);
}

// The profiler's measurements keep the device's rules, and count the work that they say.
void testMeter(Checks& check) {
  FakeMachine& machine = freshMachine();
  {
    bench::DeviceMeter meter(DeviceKind::kCuda);
    const auto isGood = [](const bench::Samples& samples, double work) {
      return samples.work == work && samples.seconds.size() == 2 &&
             std::ranges::all_of(samples.seconds, [](double seconds) { return seconds > 0; });
    };
    check.that(isGood(meter.memoryCopy(kMiB, 2), 2.0 * kMiB), "meter: memory");
    for (const DataType type : {DataType::kFloat16, DataType::kInt4})
      for (const int64_t tokens : {1, 40})
        check.that(isGood(meter.matmul({tokens, 1024, 8192, type}, 2), 2.0 * static_cast<double>(tokens) * 1024 * 8192),
                   "meter: matmul");
    for (const DataType type : {DataType::kFloat16, DataType::kInt4}) {
      const double kvBytes = 4.0 * 300 * static_cast<double>(cpu::kvRowBytes(type, 8, 64));
      check.that(isGood(meter.attention({bench::Phase::kDecode, 4, 300, 16, 8, 64, type}, 2), kvBytes),
                 "meter: decode");
    }
    check.that(isGood(meter.attention({bench::Phase::kPrefill, 2, 20, 4, 2, 64, DataType::kFloat16}, 2),
                      4.0 * 2 * 4 * 64 * 20 * 21 / 2),
               "meter: prefill");
    check.that(isGood(meter.launch(0, 2), 200) && isGood(meter.launch(1e-4, 2), 1), "meter: launches");
    check.that(contains(messageOf([&] { meter.matmul({0, 1, 1, DataType::kFloat16}, 2); }), "bad-input"),
               "meter: no tokens");
  }
  checkMachine(check, "meter");
  check.that(machine.numLaunches > 600, "meter: launches are counted");
}

}  // namespace
}  // namespace flexplan::test

int main(int argc, char** argv) {
  using namespace flexplan::test;
  const int numPolicies = argc > 1 ? std::stoi(argv[1]) : 3;
  setenv("FLEXPLAN_CUBLAS", "0", 1);
  Checks check;
  testArena(check);
  testShortfall(check);
  testUploads(check);
  testLinks(check);
  testUrgentCopies(check);
  testPinning(check);
  testPageRows(check);
  testMarks(check);
  testNoDevice(check);
  testMatmul(check, "0");
  testMatmul(check, FLEXPLAN_FAKE_CUBLAS);
  testMeter(check);
  testCudaEngine(check, numPolicies);
  return check.finish();
}
