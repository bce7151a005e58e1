// 4-bit weights that outlive an engine: read where they can be, never stale, never half, never in the way.
#include "model/quantization_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "engine/engine.h"
#include "test/check.h"
#include "test/tiny_model.h"

namespace flexplan::test {
namespace {

using std::filesystem::exists;

std::string contentOf(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
}

// A model, a cache file for it, and what it answers without one.
struct Case {
  explicit Case(Family family)
      : model(family, DataType::kBFloat16, folder.file("model")), sequences(makeSequences(model)),
        cache(folder.file("cache")) {
    base = plainConfig(model, folder);
    base.weightBits = 4;
    expected = logitsOf(base);
    base.quantizationCache = cache;
  }
  static std::vector<Sequence> makeSequences(const TinyModel& model) {
    Random random(3);
    return someSequences(model.shape, random, 5);
  }
  std::vector<std::vector<float>> logitsOf(const EngineConfig& config) const {
    Engine engine(config);
    engine.open();
    std::vector<std::vector<float>> logits;
    const RunResult result = engine.run(sequences, [](const StepEvent&) {}, Cancellation(sequences.size()));
    for (const SequenceResult& sequence : result.sequences)
      for (const auto& step : sequence.logits) logits.push_back(step);
    return logits;
  }
  bool isRight(const EngineConfig& config) const { return logitsOf(config) == expected; }

  TemporaryFolder folder;
  TinyModel model;
  std::vector<Sequence> sequences;
  std::string cache;
  EngineConfig base;
  std::vector<std::vector<float>> expected;
};

ino_t inodeOf(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

void testPlacements(Checks& check, const Case& c) {
  check.that(c.isRight(c.base) && exists(c.cache), "cache: made by the first engine");
  check.that(!exists(c.cache + ".partial"), "cache: nothing else is left");
  const ino_t made = inodeOf(c.cache);
  Random random(8);
  for (int n = 0; n < 8; ++n)
    check.that(c.isRight(randomConfig(c.base, random)), "cache: serves any placement " + std::to_string(n));
  check.that(inodeOf(c.cache) == made, "cache: used, not made again");
}

// Every byte counts: those of matrices, checksums and identity.
void testDamage(Checks& check, const Case& c) {
  const std::string good = contentOf(c.cache);
  Random random(9);
  for (int n = 0; n < 12; ++n) {
    std::string bad = good;
    const size_t at = n == 0 ? 3 : static_cast<size_t>(random.below(static_cast<int64_t>(bad.size())));
    if (n == 1) bad.resize(bad.size() - 4096);
    else if (n == 2) bad.clear();
    else bad[at] = static_cast<char>(bad[at] ^ 0x10);
    write(c.cache, bad);
    check.that(c.isRight(c.base), "damage " + std::to_string(n) + ": the results are right");
    // A byte of padding may stay as it is.
    const std::string now = contentOf(c.cache);
    check.that(now == good || (now == bad && bad.size() == good.size()), "damage: the file is whole again");
  }
  write(c.cache, good);
}

// The rows come from the file: others, under right checksums, give other results.
void testIsRead(Checks& check, const Case& c) {
  const std::string good = contentOf(c.cache);
  std::vector<int64_t> sizes;
  for (const TensorSource& tensor : c.model.tensors)
    if (tensor.cols > 1 && tensor.role != "router" && tensor.role.find("Embedding") == std::string::npos)
      sizes.push_back(tensor.rows * static_cast<int64_t>(rowBytes(DataType::kInt4, tensor.cols)));
  size_t end = 0;
  for (size_t line = 0; line < sizes.size() + 2; ++line) end = good.find('\n', end) + 1;
  QuantizationCache other(c.cache, good.substr(0, end), sizes);
  check.that(other.open(), "file: sizes and identity are what the engine wrote");
  const int64_t bytes = static_cast<int64_t>(good.size());
  AlignedBuffer content(good.size(), kPageBytes);
  std::memcpy(content.data(), good.data(), good.size());
  check.that(other.create(), "file: can be made anew");
  // The smallest value of every group of the last matrix becomes another.
  std::byte* const last = content.data() + other.offset(sizes.size() - 1);
  for (int64_t at = 0; at < sizes.back(); at += 36) last[at + 3] ^= std::byte{0x04};
  other.file().write(0, bytes, content.data());
  ThreadPool pool(1);
  const TensorSource& head = *std::ranges::find(c.model.tensors, "head", &TensorSource::role);
  other.setChecksum(sizes.size() - 1,
                    rowsChecksum(pool, last, 0, head.rows, static_cast<int64_t>(rowBytes(DataType::kInt4, head.cols))));
  check.that(other.publish(), "file: published");
  check.that(!c.isRight(c.base), "cache: what is in it is what is computed with");
  write(c.cache, good);
  check.that(c.isRight(c.base), "cache: and the right one gives the right results");
}

void testOthers(Checks& check, const Case& c) {
  std::filesystem::remove(c.cache);
  write(c.cache + ".partial", "what an interrupted engine left");
  check.that(c.isRight(c.base) && exists(c.cache), "others: a rest is written over");
  std::filesystem::remove(c.cache);
  const int descriptor = open((c.cache + ".partial").c_str(), O_RDWR | O_CREAT, 0644);
  check.that(flock(descriptor, LOCK_EX) == 0, "others: another engine is at work");
  check.that(c.isRight(c.base) && !exists(c.cache), "others: then this one keeps to itself");
  close(descriptor);
  std::vector<char> right(4);
  std::vector<std::thread> engines;
  for (size_t n = 0; n < right.size(); ++n) engines.emplace_back([&, n] { right[n] = c.isRight(c.base); });
  for (std::thread& engine : engines) engine.join();
  check.that(std::ranges::all_of(right, [](char ok) { return ok; }) && exists(c.cache), "others: four at once");
  EngineConfig nowhere = c.base;
  nowhere.quantizationCache = c.folder.file("none") + "/cache";
  check.that(c.isRight(nowhere), "others: nowhere to write is no error");
}

// The same size, the same time of last change: other weights all the same.
void testChangedModel(Checks& check, const Case& c) {
  const std::string path = c.folder.file("model");
  const std::string before = contentOf(path);
  std::string after = before;
  const TensorSource& q = *std::ranges::find(c.model.tensors, "q", &TensorSource::role);
  std::swap_ranges(after.begin() + q.byteOffset, after.begin() + q.byteOffset + q.cols * 2,
                   after.begin() + q.byteOffset + q.cols * 2);
  struct stat status;
  stat(path.c_str(), &status);
  write(path, after);
  const timespec times[2] = {status.st_atim, status.st_mtim};
  utimensat(AT_FDCWD, path.c_str(), times, 0);
  EngineConfig without = c.base;
  without.quantizationCache.clear();
  const auto changed = c.logitsOf(without);
  check.that(changed != c.expected, "changed model: it answers otherwise");
  const std::string kept = contentOf(c.cache);
  check.that(c.logitsOf(c.base) == changed, "changed model: fresh files are not cached, and not stale");
  check.that(contentOf(c.cache) == kept, "changed model: nothing is kept of a fresh file");
  std::this_thread::sleep_for(std::chrono::milliseconds(3100));
  check.that(c.logitsOf(c.base) == changed, "changed model: its weights are quantized again");
  check.that(contentOf(c.cache) != kept, "changed model: and kept");
  check.that(c.logitsOf(c.base) == changed, "changed model: and read");
}

}  // namespace
}  // namespace flexplan::test

int main() {
  using namespace flexplan::test;
  Checks check;
  const Case llama(Family::kLlama), mixtral(Family::kMixtral);
  std::this_thread::sleep_for(std::chrono::milliseconds(3100));
  for (const Case* c : {&llama, &mixtral}) {
    testPlacements(check, *c);
    testDamage(check, *c);
    testIsRead(check, *c);
    testOthers(check, *c);
  }
  testChangedModel(check, llama);
  return check.finish();
}
