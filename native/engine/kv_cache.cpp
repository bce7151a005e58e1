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

KvCache::KvCache(const EngineConfig& config, const std::vector<Block>& blocks, Transfer& transfer, Budgets& budgets)
    : transfer_(transfer),
      deviceTier_(transfer.device().tier()),
      dtype_(storedAs(config)),
      numLayers_(config.model.numLayers),
      rowBytes_(static_cast<int64_t>(cpu::kvRowBytes(dtype_, config.model.numKvHeads, config.model.headDim))) {
  Layout most;
  for (const Block& block : blocks) {
    const Layout layout = layOut(block);
    raise(most.homeBytes, layout.homeBytes, {Tier::kGpu, Tier::kCpu, Tier::kDisk});
    raise(reservedBytes_, layout.reservedBytes, {Tier::kGpu, Tier::kCpu, Tier::kDisk});
    raise(most.stagingBytes, layout.stagingBytes, {Phase::kPrefill, Phase::kDecode});
    most.diskStagingBytes = std::max(most.diskStagingBytes, layout.diskStagingBytes);
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

KvCache::Layout KvCache::layOut(const Block& block) const {
  Layout layout;
  layout.places.resize(block.slots.size());
  PerPhase<int64_t> staging{};
  int64_t diskStaging = 0;
  for (const PrefillChunk& chunk : block.chunks) {
    staging[Phase::kPrefill] = 0;
    if (chunk.firstSlot % block.gpuBatchSize == 0) staging[Phase::kDecode] = diskStaging = 0;
    for (int64_t b = chunk.firstSlot; b < chunk.endSlot; ++b) {
      const Slot& slot = block.slots[static_cast<size_t>(b)];
      if (slot.sequence < 0) continue;
      Place& place = layout.places[static_cast<size_t>(b)];
      const bool disk = slot.kvTier == Tier::kDisk;
      const int64_t reserved = slot.reservedRows * rowBytes_;
      place.layerBytes = disk ? roundUp(reserved, kPage) : reserved;
      place.home = layout.homeBytes[slot.kvTier];
      layout.homeBytes[slot.kvTier] += numLayers_ * place.layerBytes;
      layout.reservedBytes[slot.kvTier] += numLayers_ * reserved;
      if (isHome(slot)) continue;
      place.staging = {{{staging[Phase::kPrefill], staging[Phase::kDecode]}}};
      staging[Phase::kPrefill] += slot.promptTokens * rowBytes_;
      const int64_t attended = block.refills ? slot.promptTokens * rowBytes_ : rowBytes_;
      staging[Phase::kDecode] += slot.cpuAttention ? attended : reserved;
      place.diskStaging = diskStaging;
      if (disk) diskStaging += place.layerBytes;
    }
    raise(layout.stagingBytes, staging, {Phase::kPrefill, Phase::kDecode});
    layout.diskStagingBytes = std::max(layout.diskStagingBytes, diskStaging);
  }
  return layout;
}

void KvCache::beginBlock(const Block& block) {
  block_ = &block;
  layout_ = layOut(block);
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

int64_t KvCache::homeOffset(const Item& item, const ActiveSlot& active) const {
  const Place& at = place(active);
  return at.home + (item.layer - 1) * at.layerBytes;
}

std::byte* KvCache::cpuHome(const Item& item, const ActiveSlot& active) const {
  return homes_[Tier::kCpu].data() + homeOffset(item, active);
}

std::byte* KvCache::diskStaging(const Item& item, const ActiveSlot& active) const {
  return diskStaging_.data() + item.index % kDecodeBuffers * layout_.diskStagingBytes + place(active).diskStaging;
}

std::byte* KvCache::staging(const Item& item, const ActiveSlot& active) const {
  const Phase phase = stagingPhase(item);
  if (deviceTier_ == Tier::kCpu) return diskStaging(item, active);
  return staging_.data() + item.index % numBuffers(phase) * layout_.stagingBytes[phase] + place(active).staging[phase];
}

std::byte* KvCache::deviceRows(const Item& item, const ActiveSlot& active) const {
  return isHome(slot(active)) ? homes_[deviceTier_].data() + homeOffset(item, active) : staging(item, active);
}

std::byte* KvCache::newRows(const Item& item, const ActiveSlot& active) const {
  if (attendedByCpu(active)) return staging(item, active);
  return deviceRows(item, active) + active.numPast * rowBytes_;
}

std::byte* KvCache::hostRows(const Item& item, const ActiveSlot& active) const {
  return slot(active).kvTier == Tier::kCpu ? cpuHome(item, active) : diskStaging(item, active);
}

void KvCache::load(const Item& item, const BatchStep& step) {
  std::vector<CopyPiece> fromCpu, fromDisk;
  IoBatch reads(transfer_.io(), &transfer_.meter());
  for (const ActiveSlot& active : step.active) {
    const Slot& at = slot(active);
    if (isHome(at) || active.isPrompt) continue;
    const int64_t bytes = active.numPast * rowBytes_;
    const bool moved = deviceTier_ == Tier::kGpu && !at.cpuAttention;
    if (at.kvTier == Tier::kDisk) {
      reads.read(disk_, homeOffset(item, active), bytes, diskStaging(item, active));
      if (moved) fromDisk.push_back({staging(item, active), diskStaging(item, active), bytes});
    } else if (moved) {
      fromCpu.push_back({staging(item, active), cpuHome(item, active), bytes});
    }
  }
  reads.start(step.phase());
  transfer_.copy(step.phase(), Link::kCpuToGpu, fromCpu);
  reads.wait();
  transfer_.copy(step.phase(), Link::kCpuToGpu, fromDisk);
}

// The rows that are not at home yet: of a prompt also those that it shares.
KvCache::NewRows KvCache::newRowsOf(const ActiveSlot& active) const {
  const int64_t first = active.isPrompt && active.leader >= 0 ? 0 : active.numPast;
  return {first * rowBytes_, (active.numPast + active.numTokens - first) * rowBytes_};
}

void KvCache::store(const Item& item, const BatchStep& step) {
  std::vector<CopyPiece> toCpu;
  for (const ActiveSlot& active : step.active) {
    if (isHome(slot(active)) || deviceTier_ == Tier::kCpu || attendedByCpu(active)) continue;
    const auto [offset, bytes] = newRowsOf(active);
    toCpu.push_back({hostRows(item, active) + offset, deviceRows(item, active) + offset, bytes});
  }
  transfer_.copy(step.phase(), Link::kGpuToCpu, toCpu);

  IoBatch writes(transfer_.io(), &transfer_.meter());
  for (const ActiveSlot& active : step.active) {
    if (slot(active).kvTier != Tier::kDisk) continue;
    const auto [offset, bytes] = newRowsOf(active);
    // The staging buffer has the rows before, so the pages that the new rows touch are whole.
    const PageWindow pages = PageWindow::around(offset, bytes);
    writes.write(disk_, homeOffset(item, active) + pages.offset, pages.bytes, diskStaging(item, active) + pages.offset,
                 bytes);
  }
  writes.start(step.phase());
  writes.wait();
}

}  // namespace flexplan
