// Who may enter a diagonal block, and the pages that are handed out: nobody who is in is ever short of memory, no page
// has two owners, all are free in the end, and whoever waits enters some time.
#include "engine/admission.h"

#include <algorithm>
#include <map>
#include <set>

#include "engine/kv_cache.h"
#include "test/check.h"
#include "test/tiny_model.h"

namespace flexplan::test {
namespace {

constexpr std::array kTiers = {Tier::kGpu, Tier::kCpu, Tier::kDisk};

int64_t pagesOf(int64_t rows, int64_t pageRows) { return (rows + pageRows - 1) / pageRows; }

void testMostPages(Checks& check) {
  Random random(21);
  for (int n = 0; n < 2000; ++n) {
    const int64_t step = random.below(40), pageRows = 1 + random.below(n % 2 == 0 ? 9 : 64);
    std::vector<Stay> stays;
    for (int64_t s = random.below(12); s > 0; --s) {
      const int64_t first = random.below(step + 1);
      stays.push_back({1 + random.below(90), first, first + random.below(90)});
    }
    int64_t most = 0;
    for (int64_t i = step; i < step + 200; ++i) {
      int64_t pages = 0;
      for (const Stay& stay : stays) pages += i <= stay.lastStep ? pagesOf(stay.rowsAt(i), pageRows) : 0;
      most = std::max(most, pages);
    }
    check.that(mostPages(stays, step, pageRows) == most, "most pages of case " + std::to_string(n));
  }
}

std::vector<Sequence> randomSequences(Random& random, int count) {
  std::vector<Sequence> sequences(static_cast<size_t>(count));
  const int64_t mostPrompt = 1 + random.below(200), mostTokens = 1 + random.below(120);
  for (Sequence& sequence : sequences) {
    sequence.promptIds.resize(static_cast<size_t>(1 + random.below(mostPrompt)));
    sequence.maxTokens = random.below(mostTokens + 1);
  }
  return sequences;
}

// What the live sequences of a step take, counted one by one.
class Taken {
 public:
  Taken(const Block& block, Tier device) : block_(block), device_(device) {}

  void add(int64_t slotIndex, const Stay& stay, int64_t step) {
    const Slot& slot = block_.slots[static_cast<size_t>(slotIndex)];
    Batch& batch = batches_[slotIndex / block_.gpuBatchSize];
    const bool isPrompt = stay.firstStep == step;
    const int64_t tokens = isPrompt ? stay.promptTokens : 1;
    const int64_t pages = pagesOf(stay.rowsAt(step), block_.room.pageRows);
    kvPages_[slot.kvTier] += pages;
    hiddenRows_[slot.activationTier] += tokens;
    batch.tokens += tokens;
    batch.numPrompts += isPrompt;
    if (slot.activationTier != device_) batch.awayHidden += tokens;
    if (slot.activationTier == Tier::kDisk) batch.diskHidden += tokens;
    if (slot.kvTier == Tier::kDisk) batch.diskPages += pages;
    if (slot.kvTier != device_ && device_ == Tier::kGpu)
      batch.stagedRows += slot.cpuAttention && !isPrompt ? 1 : stay.rowsAt(step);
  }
  bool isWithin(const Room& room) const {
    return std::ranges::all_of(kTiers, [&](Tier tier) {
             return kvPages_[tier] <= room.kvPages[tier] && hiddenRows_[tier] <= room.hiddenRows[tier];
           }) &&
           std::ranges::all_of(batches_, [&](const auto& entry) {
             const Batch& batch = entry.second;
             return batch.awayHidden <= room.awayHiddenRows && batch.diskHidden <= room.diskHiddenRows &&
                    batch.diskPages <= room.stagedDiskPages && batch.stagedRows <= room.stagedRows &&
                    (batch.tokens <= room.launchTokens || batch.numPrompts <= 1);
           });
  }

 private:
  struct Batch {
    int64_t tokens = 0, numPrompts = 0, awayHidden = 0, diskHidden = 0, diskPages = 0, stagedRows = 0;
  };
  const Block& block_;
  const Tier device_;
  PerTier<int64_t> kvPages_{}, hiddenRows_{};
  std::map<int64_t, Batch> batches_;
};

// A block as BlockRun drives it, without a model; sequences stop at random.
class Drive {
 public:
  Drive(const EngineConfig& config, const std::vector<Sequence>& sequences, Random& random)
      : sequences_(sequences),
        block_(std::move(makeBlocks(config, sequences).front())),
        device_(config.device == DeviceKind::kCpu ? Tier::kCpu : Tier::kGpu),
        random_(random),
        admission_(block_, device_),
        live_(block_.slots.size()) {}

  // Returns the number of steps; -1: somebody waits for ever. mostLive: at once.
  int64_t run(Checks& check, int64_t& mostLive) {
    for (int64_t step = 0, numIdle = 0;; ++step) {
      admission_.prepareStep(step);
      for (int64_t k = 0; k < block_.numGpuBatches; ++k) prepare(step, k);
      Taken taken(block_, device_);
      int64_t numLive = 0;
      for (size_t s = 0; s < live_.size(); ++s) {
        if (!live_[s]) continue;
        taken.add(static_cast<int64_t>(s), *live_[s], step);
        ++numLive;
      }
      mostLive = std::max(mostLive, numLive);
      check.that(taken.isWithin(block_.room), "admission: step " + std::to_string(step) + " has room for all");
      if (numLive == 0 && next_ == sequences_.size()) return step;
      numIdle = numLive == 0 ? numIdle + 1 : 0;
      if (numIdle > 1 || step > block_.numSteps) return -1;
    }
  }

 private:
  void prepare(int64_t step, int64_t k) {
    const int64_t first = k * block_.gpuBatchSize, end = first + block_.gpuBatchSize;
    for (int64_t s = first; s < end; ++s) {
      auto& stay = live_[static_cast<size_t>(s)];
      if (!stay || (stay->lastStep >= step && random_.below(50) > 0)) continue;
      stay.reset();
      admission_.leave(s);
    }
    for (int64_t s = first; s < end && next_ < sequences_.size(); ++s) {
      const Sequence& sequence = sequences_[next_];
      if (block_.slots[static_cast<size_t>(s)].sequence < 0 || !admission_.isFree(s)) continue;
      if (!admission_.hasRoom(s, sequence)) continue;
      admission_.enter(s, sequence);
      live_[static_cast<size_t>(s)] = {sequence.promptTokens(), step, step + sequence.numSteps() - 1};
      ++next_;
    }
  }

  const std::vector<Sequence>& sequences_;
  const Block block_;
  const Tier device_;
  Random& random_;
  Admission admission_;
  std::vector<std::optional<Stay>> live_;
  size_t next_ = 0;
};

void testAdmission(Checks& check, const EngineConfig& base) {
  Random random(22);
  int numShared = 0;
  for (int n = 0; n < 400; ++n) {
    EngineConfig config = randomConfig(base, random);
    config.schedule = Schedule::kDiagonal;
    config.prefillChunkTokens = 1 + random.below(400);
    const auto sequences = randomSequences(random, 1 + static_cast<int>(random.below(60)));
    int64_t mostLive = 0;
    const int64_t steps = Drive(config, sequences, random).run(check, mostLive);
    check.that(steps >= 0, "admission: everybody enters in case " + std::to_string(n));
    numShared += mostLive > 2;
  }
  check.that(numShared > 150, "admission: enough blocks with several at once, " + std::to_string(numShared));
}

// A KV cache on the CPU itself, so that pages are addresses, and sequences that come and go in it.
class PagedCache {
 public:
  PagedCache(const EngineConfig& config, const std::vector<Sequence>& sequences)
      : sequences_(sequences),
        pool_(1),
        budgets_(unlimited()),
        device_(makeDevice(DeviceKind::kCpu, pool_, budgets_, 1e9, 1e9)),
        transfer_(*device_, io_),
        blocks_(makeBlocks(config, sequences)),
        cache_(config, sequences, blocks_, transfer_, budgets_),
        admission_(block(), Tier::kCpu) {
    cache_.beginBlock(block());
  }
  bool isDone() const { return next_ == sequences_.size() && live_.empty(); }
  int64_t numPages() const { return block().room.kvPages[Tier::kCpu]; }
  int64_t numFreePages() const { return cache_.numFreePages(Tier::kCpu); }
  int64_t numGrown() const { return numGrown_; }

  void step(int64_t step, Random& random) {
    admission_.prepareStep(step);
    std::erase_if(live_.active, [&](const ActiveSlot& active) { return ends(active, random); });
    for (ActiveSlot& active : live_.active) {
      active.numPast += active.numTokens;
      active.numTokens = 1;
      numGrown_ += active.numPast % block().room.pageRows == 0;
    }
    for (size_t s = 0; s < block().slots.size(); ++s) enter(static_cast<int64_t>(s));
    cache_.takePages(live_);
  }

  // Whether each live sequence has its own pages, none of which reaches into another.
  bool arePagesApart() const {
    const Item item{1, 1, 0, 0};
    std::set<const std::byte*> pages;
    int64_t count = 0;
    for (const ActiveSlot& active : live_.active) {
      count += cache_.numPages(active);
      for (int64_t page = 0; page < cache_.numPages(active); ++page)
        pages.insert(cache_.devicePage(item, active, page));
    }
    const int64_t pageBytes = block().room.pageRows * cache_.rowBytes();
    const auto tooClose = [&](const std::byte* a, const std::byte* b) { return b - a < pageBytes; };
    return static_cast<int64_t>(pages.size()) == count && count + numFreePages() == numPages() &&
           std::adjacent_find(pages.begin(), pages.end(), tooClose) == pages.end();
  }

 private:
  static Budgets unlimited() {
    Budgets budgets;
    for (const Tier tier : kTiers) budgets[tier] = std::make_unique<MemoryBudget>(tier, int64_t{1} << 40);
    return budgets;
  }
  const Block& block() const { return blocks_.front(); }

  bool ends(const ActiveSlot& active, Random& random) {
    const bool isLast = active.numRows() == sequences_[static_cast<size_t>(active.sequence)].reservedRows();
    if (!isLast && random.below(40) > 0) return false;
    cache_.leave(active);
    admission_.leave(active.slot);
    return true;
  }
  void enter(int64_t slot) {
    if (next_ == sequences_.size() || !admission_.isFree(slot) || !admission_.hasRoom(slot, sequences_[next_])) return;
    ActiveSlot entering;
    entering.slot = slot;
    entering.sequence = static_cast<int64_t>(next_);
    entering.numTokens = sequences_[next_].promptTokens();
    admission_.enter(slot, sequences_[next_]);
    cache_.enter(slot, entering.sequence);
    live_.active.push_back(entering);
    ++next_;
  }

  const std::vector<Sequence>& sequences_;
  ThreadPool pool_;
  Budgets budgets_;
  const std::unique_ptr<Device> device_;
  IoPool io_;
  Transfer transfer_;
  const std::vector<Block> blocks_;
  KvCache cache_;
  Admission admission_;
  BatchStep live_;
  size_t next_ = 0;
  int64_t numGrown_ = 0;
};

void testPages(Checks& check, const EngineConfig& base) {
  Random random(23);
  int64_t numGrown = 0;
  for (int n = 0; n < 60; ++n) {
    EngineConfig config = base;
    config.schedule = Schedule::kDiagonal;
    config.gpuBatchSize = 2 + random.below(8);
    config.kvTiers = config.activationTiers = std::vector<Tier>(static_cast<size_t>(config.gpuBatchSize), Tier::kCpu);
    config.cpuAttention.assign(static_cast<size_t>(config.gpuBatchSize), 0);
    const auto sequences = randomSequences(random, 30);
    PagedCache cache(config, sequences);
    for (int64_t step = 0; !cache.isDone(); ++step) {
      cache.step(step, random);
      check.that(cache.arePagesApart(), "pages: each has one owner, or is free");
    }
    check.that(cache.numFreePages() == cache.numPages(), "pages: all are free in the end");
    numGrown += cache.numGrown();
  }
  check.that(numGrown > 100, "pages: enough sequences took another page, " + std::to_string(numGrown));
}

}  // namespace
}  // namespace flexplan::test

int main() {
  using namespace flexplan::test;
  Checks check;
  const TemporaryFolder folder;
  const TinyModel model(Family::kLlama, flexplan::DataType::kFloat16, folder.file("model"));
  const flexplan::EngineConfig base = plainConfig(model, folder);
  testMostPages(check);
  testAdmission(check, base);
  testPages(check, base);
  return check.finish();
}
