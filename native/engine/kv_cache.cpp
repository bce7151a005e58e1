#include "engine/kv_cache.h"

#include <algorithm>

#include "core/error.h"

namespace flexplan {
namespace {

constexpr int64_t kPage = static_cast<int64_t>(kPageBytes);
// Prefill: compute fills one while another is stored. Decode: one more is loaded meanwhile.
constexpr int64_t kPrefillBuffers = 2;
constexpr int64_t kDecodeBuffers = 3;

int64_t numBuffers(Phase phase) { return phase == Phase::kPrefill ? kPrefillBuffers : kDecodeBuffers; }

// bf16 models keep K and V in fp16: as many bytes, an eighth of the rounding, and K and V stay far inside its range.
DataType storedAs(const EngineConfig& config) {
  if (config.kvCacheBits == 4) return DataType::kInt4;
  return config.model.dtype == DataType::kBFloat16 ? DataType::kFloat16 : config.model.dtype;
}

template <typename Key, typename Array>
void raise(Array& most, const Array& values, std::initializer_list<Key> keys) {
  for (const Key key : keys) most[key] = std::max(most[key], values[key]);
}

}  // namespace

KvCache::KvCache(const EngineConfig& config, std::span<const Sequence> sequences, const std::vector<Block>& blocks,
                 Transfer& transfer, Budgets& budgets)
    : transfer_(transfer),
      deviceTier_(transfer.device().tier()),
      dtype_(storedAs(config)),
      numLayers_(config.model.numLayers),
      rowBytes_(static_cast<int64_t>(cpu::kvRowBytes(dtype_, config.model.numKvHeads, config.model.headDim))),
      slidingWindow_(config.model.slidingWindow),
      sequences_(sequences),
      places_(sequences.size()) {
  Sizes most;
  for (const Block& block : blocks) {
    const Sizes sizes = sizesOf(block);
    raise(most.homeBytes, sizes.homeBytes, {Tier::kGpu, Tier::kCpu, Tier::kDisk});
    raise(reservedBytes_, sizes.reservedBytes, {Tier::kGpu, Tier::kCpu, Tier::kDisk});
    raise(most.stagingBytes, sizes.stagingBytes, {Phase::kPrefill, Phase::kDecode});
    most.diskStagingBytes = std::max(most.diskStagingBytes, sizes.diskStagingBytes);
  }
  const std::string what = "the KV cache";
  if (deviceTier_ == Tier::kGpu) {
    homes_[Tier::kGpu] = transfer.device().allocate(most.homeBytes[Tier::kGpu], what);
    staging_ = transfer.device().allocate(std::max(kPrefillBuffers * most.stagingBytes[Phase::kPrefill],
                                                   kDecodeBuffers * most.stagingBytes[Phase::kDecode]),
                                          "KV staging");
  }
  homes_[Tier::kCpu] = TierBuffer::onHost(*budgets[Tier::kCpu], most.homeBytes[Tier::kCpu], what);
  diskStaging_ =
      TierBuffer::onHost(*budgets[Tier::kCpu], kDecodeBuffers * most.diskStagingBytes, "KV staging", kPageBytes);
  if (most.homeBytes[Tier::kDisk] == 0) return;
  diskCharge_ = budgets[Tier::kDisk]->take(most.homeBytes[Tier::kDisk], what);
  disk_ = DirectFile::createSpill(config.spillDirectory, most.homeBytes[Tier::kDisk], what);
}

// On disk a page of KV rows is whole pages of direct I/O.
int64_t KvCache::pageBytes(Tier tier, int64_t rows) const {
  return tier == Tier::kDisk ? roundUp(rows * rowBytes_, kPage) : rows * rowBytes_;
}

KvCache::Sizes KvCache::sizesOf(const Block& block) const {
  if (block.refills) return diagonalSizes(block);
  Sizes sizes;
  for (const Slot& slot : block.slots) {
    if (slot.sequence < 0) continue;
    sizes.homeBytes[slot.kvTier] += numLayers_ * pageBytes(slot.kvTier, slot.reservedRows);
    sizes.reservedBytes[slot.kvTier] += numLayers_ * slot.reservedRows * rowBytes_;
  }
  for (const PrefillChunk& chunk : block.chunks)
    raiseStaging(sizes, block.chunk(chunk), Phase::kPrefill);
  for (int64_t k = 0; k < block.numGpuBatches; ++k) raiseStaging(sizes, block.batch(k), Phase::kDecode);
  return sizes;
}

void KvCache::raiseStaging(Sizes& sizes, std::span<const Slot> slots, Phase phase) const {
  int64_t rows = 0, diskBytes = 0;
  for (const Slot& slot : slots) {
    if (slot.sequence < 0 || isHome(slot)) continue;
    rows += phase == Phase::kPrefill ? slot.promptTokens : slot.cpuAttention ? 1 : slot.reservedRows;
    if (slot.kvTier == Tier::kDisk) diskBytes += pageBytes(Tier::kDisk, slot.reservedRows);
  }
  sizes.stagingBytes[phase] = std::max(sizes.stagingBytes[phase], rows * rowBytes_);
  sizes.diskStagingBytes = std::max(sizes.diskStagingBytes, diskBytes);
}

KvCache::Sizes KvCache::diagonalSizes(const Block& block) const {
  const Room& room = block.room;
  Sizes sizes;
  for (const Tier tier : {Tier::kGpu, Tier::kCpu, Tier::kDisk}) {
    sizes.homeBytes[tier] = room.kvPages[tier] * numLayers_ * pageBytes(tier, room.pageRows);
    sizes.reservedBytes[tier] = room.kvPages[tier] * numLayers_ * room.pageRows * rowBytes_;
  }
  sizes.stagingBytes[Phase::kDecode] = room.stagedRows * rowBytes_;
  sizes.diskStagingBytes = room.stagedDiskPages * pageBytes(Tier::kDisk, room.pageRows);
  return sizes;
}

void KvCache::beginBlock(const Block& block) {
  block_ = &block;
  sizes_ = sizesOf(block);
  if (block.refills) {
    for (const Tier tier : {Tier::kGpu, Tier::kCpu, Tier::kDisk}) {
      freePages_[tier].clear();
      for (int64_t page = block.room.kvPages[tier] - 1; page >= 0; --page) freePages_[tier].push_back(page);
    }
    return;
  }
  PerTier<int64_t> end{};
  for (const Slot& slot : block.slots) {
    if (slot.sequence < 0) continue;
    const int64_t bytes = pageBytes(slot.kvTier, slot.reservedRows);
    places_[static_cast<size_t>(slot.sequence)] = {slot.reservedRows, bytes, {end[slot.kvTier]}, 1};
    end[slot.kvTier] += numLayers_ * bytes;
  }
}

void KvCache::enter(int64_t slot, int64_t sequence) {
  Place place;
  place.pageRows = block_->room.pageRows;
  place.pageBytes = pageBytes(block_->slots[static_cast<size_t>(slot)].kvTier, place.pageRows);
  place.homes.resize(static_cast<size_t>(pagesOf(place, sequences_[static_cast<size_t>(sequence)].reservedRows())));
  places_[static_cast<size_t>(sequence)] = std::move(place);
}

// There are enough: that is what lets a sequence enter.
void KvCache::takePages(const BatchStep& step) {
  for (const ActiveSlot& active : step.active) {
    Place& place = places_[static_cast<size_t>(active.sequence)];
    auto& free = freePages_[slot(active).kvTier];
    for (const int64_t needed = pagesOf(place, active.numRows()); place.numTaken < needed; ++place.numTaken) {
      if (free.empty()) throw Error(ErrorCode::kEngine, "expected a free page of the KV cache, got none; report this");
      place.homes[static_cast<size_t>(place.numTaken)] = free.back() * numLayers_ * place.pageBytes;
      free.pop_back();
    }
  }
}

void KvCache::leave(const ActiveSlot& active) {
  const Place& place = this->place(active);
  for (int64_t page = 0; page < place.numTaken; ++page)
    freePages_[slot(active).kvTier].push_back(place.homes[static_cast<size_t>(page)] / (numLayers_ * place.pageBytes));
}

void KvCache::stage(BatchStep& step) const {
  int64_t end = 0, diskEnd = 0;
  for (ActiveSlot& active : step.active) {
    if (isHome(slot(active))) continue;
    active.staging = end;
    end += (attendedByCpu(active) ? 1 : active.numRows()) * rowBytes_;
    if (slot(active).kvTier != Tier::kDisk) continue;
    active.diskStaging = diskEnd;
    diskEnd += numPages(active) * place(active).pageBytes;
  }
}

bool KvCache::loads(Phase phase) const {
  return phase == Phase::kDecode && std::ranges::any_of(block_->slots, [&](const Slot& slot) {
           return slot.sequence >= 0 && !isHome(slot) && !(slot.kvTier == Tier::kCpu && slot.cpuAttention);
         });
}

// A cpu slot that is attended by the CPU gets its new row while it is attended.
bool KvCache::stores(Phase phase) const {
  return std::ranges::any_of(block_->slots, [&](const Slot& slot) {
    return slot.sequence >= 0 && !isHome(slot) &&
           (phase == Phase::kPrefill || !(slot.kvTier == Tier::kCpu && slot.cpuAttention));
  });
}

int64_t KvCache::storesBefore(const Item& item) const {
  const int64_t freed = item.index - numBuffers(stagingPhase(item)) + 1;
  if (block_->refills || item.phase() == Phase::kPrefill) return freed;
  // The two phases divide the same staging memory differently.
  const int64_t endOfPrefill = (numLayers_ + 2) * block_->numItems(0);
  return std::max(freed, endOfPrefill);
}

int64_t KvCache::homeOffset(const Item& item, const ActiveSlot& active, int64_t page) const {
  const Place& at = place(active);
  return at.homes[static_cast<size_t>(page)] + (item.layer - 1) * at.pageBytes;
}

std::byte* KvCache::diskStaging(const Item& item, const ActiveSlot& active, int64_t page) const {
  return diskStaging_.data() + item.index % kDecodeBuffers * sizes_.diskStagingBytes + active.diskStaging +
         page * place(active).pageBytes;
}

std::byte* KvCache::staging(const Item& item, const ActiveSlot& active) const {
  const Phase phase = stagingPhase(item);
  return staging_.data() + item.index % numBuffers(phase) * sizes_.stagingBytes[phase] + active.staging;
}

std::byte* KvCache::devicePage(const Item& item, const ActiveSlot& active, int64_t page) const {
  if (isHome(slot(active))) return homes_[deviceTier_].data() + homeOffset(item, active, page);
  if (deviceTier_ == Tier::kCpu) return diskStaging(item, active, page);
  return staging(item, active) + page * pageRows(active) * rowBytes_;
}

std::byte* KvCache::hostPage(const Item& item, const ActiveSlot& active, int64_t page) const {
  return slot(active).kvTier == Tier::kCpu ? homes_[Tier::kCpu].data() + homeOffset(item, active, page)
                                           : diskStaging(item, active, page);
}

int64_t KvCache::firstLoadedRow(const ActiveSlot& active) const {
  if (slidingWindow_ <= 0) return 0;
  const int64_t attended = std::max<int64_t>(0, active.numPast + 1 - slidingWindow_);
  return attended / cpu::kAttentionChunk * cpu::kAttentionChunk;
}

void KvCache::load(const Item& item, const BatchStep& step) {
  std::vector<CopyPiece> fromCpu, fromDisk;
  IoBatch reads(transfer_.io(), &transfer_.meter());
  for (const ActiveSlot& active : step.active) {
    const Slot& at = slot(active);
    if (isHome(at) || active.isPrompt) continue;
    const bool moved = deviceTier_ == Tier::kGpu && !at.cpuAttention;
    auto& pieces = at.kvTier == Tier::kDisk ? fromDisk : fromCpu;
    forEachPage(active, firstLoadedRow(active), active.numPast, [&](int64_t page, int64_t before, int64_t count) {
      const int64_t offset = before * rowBytes_, bytes = count * rowBytes_;
      if (at.kvTier == Tier::kDisk)
        reads.read(disk_, homeOffset(item, active, page) + offset, bytes,
                   diskStaging(item, active, page) + PageWindow::around(offset, bytes).offset);
      if (moved)
        pieces.push_back({devicePage(item, active, page) + offset, hostPage(item, active, page) + offset, bytes});
    });
  }
  reads.start(step.phase());
  transfer_.copy(step.phase(), Link::kCpuToGpu, fromCpu);
  reads.wait();
  transfer_.copy(step.phase(), Link::kCpuToGpu, fromDisk);
}

void KvCache::store(const Item& item, const BatchStep& step) {
  std::vector<CopyPiece> toCpu;
  for (const ActiveSlot& active : step.active) {
    if (isHome(slot(active)) || deviceTier_ == Tier::kCpu || attendedByCpu(active)) continue;
    forEachPage(active, firstNewRow(active), active.numRows(), [&](int64_t page, int64_t before, int64_t count) {
      const int64_t offset = before * rowBytes_;
      toCpu.push_back(
          {hostPage(item, active, page) + offset, devicePage(item, active, page) + offset, count * rowBytes_});
    });
  }
  transfer_.copy(step.phase(), Link::kGpuToCpu, toCpu);

  IoBatch writes(transfer_.io(), &transfer_.meter());
  for (const ActiveSlot& active : step.active) {
    if (slot(active).kvTier != Tier::kDisk) continue;
    forEachPage(active, firstNewRow(active), active.numRows(), [&](int64_t page, int64_t before, int64_t count) {
      // The staging buffer has what will be needed of the pages that the new rows touch: what was loaded began with a
      // page.
      const PageWindow window = PageWindow::around(before * rowBytes_, count * rowBytes_);
      writes.write(disk_, homeOffset(item, active, page) + window.offset, window.bytes,
                   diskStaging(item, active, page) + window.offset, count * rowBytes_);
    });
  }
  writes.start(step.phase());
  writes.wait();
}

}  // namespace flexplan
