// The tiers: caps hold, links keep their rate and their bytes, direct I/O reads what is in the file, failures have
// names.
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <numeric>
#include <thread>

#include "core/error.h"
#include "model/device.h"
#include "test/check.h"
#include "test/tiny_model.h"
#include "tier/clock.h"
#include "tier/io_batch.h"
#include "tier/memory_budget.h"

namespace flexplan::test {
namespace {

// The code of the Error that `work` throws, and whether its message has all of `words`; "" when it throws none.
std::string errorOf(const std::function<void()>& work, std::initializer_list<std::string> words) {
  try {
    work();
  } catch (const Error& error) {
    for (const std::string& word : words)
      if (std::string(error.what()).find(word) == std::string::npos) return "no \"" + word + "\" in: " + error.what();
    return error.codeName();
  }
  return "";
}

void testBudget(Checks& check) {
  MemoryBudget budget(Tier::kGpu, 1000);
  {
    const auto first = budget.take(600, "first");
    check.that(errorOf([&] { budget.take(401, "second"); }, {"gpu", "1000", "1001", "second"}) == "out-of-memory",
               "budget: beyond the cap");
    const auto rest = budget.take(400, "rest");
    check.that(budget.usedBytes() == 1000, "budget: to the last byte");
  }
  check.that(budget.usedBytes() == 0 && budget.peakBytes() == 1000, "budget: given back, peak kept");
  MemoryBudget disk(Tier::kDisk, 10);
  check.that(errorOf([&] { disk.take(11, "spill"); }, {"disk"}) == "no-disk-space", "budget: disk has its own word");
  {
    const TierBuffer buffer = TierBuffer::onHost(budget, 65, "buffer");
    check.that(budget.usedBytes() == 128 && buffer.bytes() == 128, "buffer: charged as rounded");
    TierBuffer moved = TierBuffer::onHost(budget, 64, "other");
    moved = TierBuffer();
    check.that(budget.usedBytes() == 128, "buffer: freed when overwritten");
  }
  check.that(budget.usedBytes() == 0, "buffer: charge ends with it");
}

// The link's rate is a cap on what all users together get, whoever sleeps how long; arriving late is the machine's
// right.
void testPacedLink(Checks& check) {
  constexpr double kRate = 200e6;
  constexpr int64_t kBytes = 2'000'003;
  PacedLink link(kRate);
  Random random(1);
  std::vector<std::byte> from(kBytes), to(2 * kBytes);
  for (auto& byte : from) byte = static_cast<std::byte>(random.bits());
  const auto send = [&](std::byte* target) {
    // Odd pieces: chunks end inside them.
    std::vector<CopyPiece> pieces;
    for (int64_t at = 0, size = 1; at < kBytes; at += size, size = size * 7 % 99991 + 1)
      pieces.push_back({target + at, from.data() + at, std::min(size, kBytes - at)});
    link.copy(pieces);
  };
  const double start = nowSeconds();
  std::thread other([&] { send(to.data() + kBytes); });
  send(to.data());
  other.join();
  const double seconds = nowSeconds() - start;
  check.that(std::memcmp(to.data(), from.data(), kBytes) == 0, "link: bytes of the first user");
  check.that(std::memcmp(to.data() + kBytes, from.data(), kBytes) == 0, "link: bytes of the second user");
  check.that(seconds >= 2 * kBytes / kRate, "link: two users do not exceed its rate");
  check.that(errorOf([] { PacedLink(0.0); }, {"rate"}) == "bad-input", "link: a rate of 0 is refused");
  PacedLink unpaced(std::numeric_limits<double>::infinity());
  const CopyPiece piece{to.data(), from.data() + 1, 5};
  unpaced.copy({&piece, 1});
  check.that(std::memcmp(to.data(), from.data() + 1, 5) == 0, "link: without pace");
}

void testWindows(Checks& check) {
  for (int64_t offset : {0, 1, 4095, 4096, 10000}) {
    for (int64_t bytes : {1, 4095, 4096, 4097, 9000}) {
      const PageWindow window = PageWindow::around(offset, bytes);
      check.that(window.offset % 4096 == 0 && window.bytes % 4096 == 0, "window: whole pages");
      check.that(window.offset + window.skip == offset && window.skip < 4096, "window: begins in the first page");
      check.that(window.offset + window.bytes >= offset + bytes && window.offset + window.bytes - 4096 < offset + bytes,
                 "window: ends in the last page");
    }
  }
}

void testReads(Checks& check, const TemporaryFolder& folder) {
  constexpr int64_t kSize = 9'000'017;
  Random random(2);
  std::vector<char> content(kSize);
  for (char& byte : content) byte = static_cast<char>(random.bits());
  const std::string path = folder.file("content");
  std::ofstream(path, std::ios::binary).write(content.data(), kSize);
  const DirectFile file = DirectFile::openForReading(path);
  std::printf("direct I/O in %s: %s\n", folder.path().c_str(), file.isDirect() ? "yes" : "no, buffered");
  check.that(file.sizeBytes() == kSize, "file: size");

  IoPool pool;
  TrafficMeter meter;
  IoBatch batch(pool, &meter);
  int64_t useful = 0;
  for (int round = 0; round < 40; ++round) {
    std::vector<std::pair<int64_t, int64_t>> ranges;
    std::vector<AlignedBuffer> windows;
    for (int n = 0; n < 5; ++n) {
      // The end of the file is part of it; now and then more than one request.
      const int64_t offset = n == 0 ? kSize - 1 - random.below(5000) : random.below(kSize - 1);
      const int64_t bytes =
          n == 0 ? kSize - offset : 1 + random.below(std::min<int64_t>(kSize - offset, n == 1 ? 9'000'000 : 30'000));
      ranges.emplace_back(offset, bytes);
      windows.emplace_back(static_cast<size_t>(PageWindow::around(offset, bytes).bytes), kPageBytes);
      batch.read(file, offset, bytes, windows.back().data());
      useful += bytes;
    }
    batch.start(Phase::kDecode);
    batch.wait();
    for (size_t n = 0; n < ranges.size(); ++n) {
      const auto [offset, bytes] = ranges[n];
      const std::byte* const got = windows[n].data() + PageWindow::around(offset, bytes).skip;
      check.that(std::memcmp(got, content.data() + offset, static_cast<size_t>(bytes)) == 0,
                 "file: bytes at " + std::to_string(offset));
    }
  }
  check.that(meter.bytes(Phase::kDecode, Link::kDiskToCpu) == useful, "file: useful bytes are counted");
  check.that(meter.seconds(Phase::kDecode, Link::kDiskToCpu) > 0, "file: busy seconds are counted");

  AlignedBuffer window(1 << 20, kPageBytes);
  batch.read(file, kSize - 10, 11, window.data());
  batch.start(Phase::kDecode);
  check.that(errorOf([&] { batch.wait(); }, {path, "truncated"}) == "bad-input", "file: too short is an error");
  batch.read(file, kSize - 10, 10, window.data());
  batch.start(Phase::kDecode);
  batch.wait();
  check.that(true, "file: a batch works again after an error");
  check.that(errorOf([&] { DirectFile::openForReading(folder.file("none")); }, {"none"}) == "bad-input",
             "file: missing");
}

void testSpill(Checks& check, const TemporaryFolder& folder) {
  constexpr int64_t kSize = 6 << 20;
  DirectFile spill = DirectFile::createSpill(folder.path(), kSize, "the test");
  check.that(access(spill.path().c_str(), F_OK) != 0, "spill: unlinked at once");
  check.that(spill.sizeBytes() == kSize, "spill: reserved");
  AlignedBuffer out(kSize, kPageBytes), in(kSize, kPageBytes);
  Random random(3);
  for (size_t n = 0; n < out.size(); ++n) out.data()[n] = static_cast<std::byte>(random.bits());
  IoPool pool;
  TrafficMeter meter;
  {
    IoBatch batch(pool, &meter);
    batch.write(spill, 0, kSize, out.data(), 5);
    batch.start(Phase::kPrefill);
    batch.wait();
    batch.read(spill, 0, kSize, in.data());
    batch.start(Phase::kPrefill);
    batch.wait();
  }
  check.that(std::memcmp(in.data(), out.data(), kSize) == 0, "spill: reads what was written");
  check.that(meter.bytes(Phase::kPrefill, Link::kCpuToDisk) == 5, "spill: useful bytes");
  check.that(errorOf([&] { DirectFile::createSpill(folder.path(), int64_t{1} << 55, "too much"); },
                     {"too much", std::to_string(int64_t{1} << 55)}) == "no-disk-space",
             "spill: no space has a name");
  check.that(errorOf([&] { DirectFile::createSpill(folder.file("none"), 1, "nowhere"); }, {"nowhere"}) == "bad-input",
             "spill: no folder");
  // Dropped while its requests wait: nothing is written to memory that is gone.
  for (int n = 0; n < 50; ++n) {
    AlignedBuffer briefly(kSize, kPageBytes);
    IoBatch dropped(pool, nullptr);
    for (int64_t at = 0; at < kSize; at += 64 << 10) dropped.read(spill, at, 64 << 10, briefly.data() + at);
    dropped.start(Phase::kPrefill);
  }
  check.that(true, "spill: batches can be dropped");
}

void testBusyClock(Checks& check) {
  BusyClock clock;
  const double start = nowSeconds();
  {
    const BusyClock::Scope outer(clock);
    for (int n = 0; n < 3; ++n) {
      const BusyClock::Scope inner(clock);
      sleepUntil(nowSeconds() + 0.002, true);
    }
  }
  const double seconds = nowSeconds() - start;
  check.that(clock.seconds() >= 0.006 && clock.seconds() <= seconds, "busy: overlapping users count once");
}

}  // namespace
}  // namespace flexplan::test

int main() {
  using namespace flexplan::test;
  Checks check;
  const TemporaryFolder folder;
  testBudget(check);
  testPacedLink(check);
  testWindows(check);
  testReads(check, folder);
  testSpill(check, folder);
  testBusyClock(check);
  return check.finish();
}
