#include "engine/hidden_states.h"

#include <algorithm>

namespace flexplan {
namespace {
constexpr int64_t kPage = static_cast<int64_t>(kPageBytes);
constexpr std::array kAllTiers = {Tier::kGpu, Tier::kCpu, Tier::kDisk};
}  // namespace

HiddenStates::HiddenStates(const EngineConfig& config, const std::vector<Block>& blocks, Transfer& transfer,
                           Budgets& budgets)
    : transfer_(transfer),
      deviceTier_(transfer.device().tier()),
      rowBytes_(config.model.hiddenBytes()),
      headLayer_(config.model.headLayer()) {
  Layout most;
  for (const Block& block : blocks) {
    const Layout layout = layOut(block);
    for (const Tier tier : kAllTiers) {
      most.homeBytes[tier] = std::max(most.homeBytes[tier], layout.homeBytes[tier]);
      reservedBytes_[tier] = std::max(reservedBytes_[tier], layout.reservedBytes[tier]);
    }
    most.bufferBytes = std::max(most.bufferBytes, layout.bufferBytes);
    most.diskStagingBytes = std::max(most.diskStagingBytes, layout.diskStagingBytes);
  }
  const std::string what = "activations";
  if (deviceTier_ == Tier::kGpu) {
    homes_[Tier::kGpu] = transfer.device().allocate(most.homeBytes[Tier::kGpu], what);
    buffers_ = transfer.device().allocate(kBuffers * most.bufferBytes, "activation buffers");
  }
  homes_[Tier::kCpu] = TierBuffer::onHost(*budgets[Tier::kCpu], most.homeBytes[Tier::kCpu], what);
  diskStaging_ =
      TierBuffer::onHost(*budgets[Tier::kCpu], kBuffers * most.diskStagingBytes, "activation staging", kPageBytes);
  if (most.homeBytes[Tier::kDisk] == 0) return;
  diskCharge_ = budgets[Tier::kDisk]->take(most.homeBytes[Tier::kDisk], what);
  disk_ = DirectFile::createSpill(config.spillDirectory, most.homeBytes[Tier::kDisk], what);
}

HiddenStates::Layout HiddenStates::layOut(const Block& block) const {
  if (block.refills) return diagonalLayout(block);
  Layout layout;
  for (const PrefillChunk& chunk : block.chunks) {
    PerTier<int64_t> bytes{};
    for (const Slot& slot : block.chunk(chunk)) bytes[slot.activationTier] += slot.promptTokens * rowBytes_;
    layout.chunks.push_back(layout.homeBytes);
    for (const Tier tier : kAllTiers) {
      layout.reservedBytes[tier] += bytes[tier];
      layout.homeBytes[tier] += tier == Tier::kDisk ? roundUp(bytes[tier], kPage) : bytes[tier];
    }
    makeRoom(layout, awayBytes(bytes), bytes[Tier::kDisk]);
  }
  for (int64_t k = 0; k < block.numGpuBatches; ++k) {
    PerTier<int64_t> bytes{};
    for (const Slot& slot : block.batch(k)) bytes[slot.activationTier] += slot.sequence >= 0 ? rowBytes_ : 0;
    makeRoom(layout, awayBytes(bytes), bytes[Tier::kDisk]);
  }
  return layout;
}

// On disk the rows of each GPU batch begin at a page.
HiddenStates::Layout HiddenStates::diagonalLayout(const Block& block) const {
  const Room& room = block.room;
  Layout layout;
  for (const Tier tier : kAllTiers) layout.reservedBytes[tier] = room.hiddenRows[tier] * rowBytes_;
  layout.homeBytes = layout.reservedBytes;
  const auto numOnDisk = std::ranges::count_if(
      block.slots, [](const Slot& slot) { return slot.sequence >= 0 && slot.activationTier == Tier::kDisk; });
  layout.homeBytes[Tier::kDisk] = roundDown(
      layout.homeBytes[Tier::kDisk] + std::min<int64_t>(numOnDisk, block.numGpuBatches) * (kPage - 1), kPage);
  makeRoom(layout, room.awayHiddenRows * rowBytes_, room.diskHiddenRows * rowBytes_);
  return layout;
}

void HiddenStates::place(BatchStep& step, int64_t batch) {
  if (batch == 0) placedEnd_ = {};
  step.hiddenHome = placedEnd_;
  const Packing packing = pack(step);
  for (const Tier tier : kAllTiers)
    placedEnd_[tier] += tier == Tier::kDisk ? roundUp(packing.bytes[tier], kPage) : packing.bytes[tier];
}

int64_t HiddenStates::awayBytes(const PerTier<int64_t>& bytes) const {
  return bytes[Tier::kGpu] + bytes[Tier::kCpu] + bytes[Tier::kDisk] - bytes[deviceTier_];
}

// Buffers for items with so many bytes away from the device, and of those on disk.
void HiddenStates::makeRoom(Layout& layout, int64_t awayBytes, int64_t diskBytes) const {
  layout.bufferBytes = std::max(layout.bufferBytes, awayBytes);
  layout.diskStagingBytes = std::max(layout.diskStagingBytes, roundUp(diskBytes, kPage));
}

void HiddenStates::beginBlock(const Block& block) {
  block_ = &block;
  layout_ = layOut(block);
}

bool HiddenStates::moves() const {
  return std::ranges::any_of(block_->slots,
                             [&](const Slot& slot) { return slot.sequence >= 0 && !isHome(slot.activationTier); });
}

HiddenStates::Packing HiddenStates::pack(const BatchStep& step) const {
  Packing packing;
  for (const ActiveSlot& active : step.active) {
    int64_t& end = packing.bytes[tierOf(active)];
    packing.offsets.push_back(end);
    end += active.numTokens * rowBytes_;
  }
  return packing;
}

std::byte* HiddenStates::diskStaging(const Item& item) const {
  return diskStaging_.data() + item.index % kBuffers * layout_.diskStagingBytes;
}

// Rows away from home lie here while the device works on them: first those of the cpu tier, then those of the disk.
std::byte* HiddenStates::awayBuffer(const Item& item) const {
  return buffers_.data() + item.index % kBuffers * layout_.bufferBytes;
}

// Device memory of the row at `offset` among the step's rows on `tier`.
std::byte* HiddenStates::locate(const Item& item, const BatchStep& step, const Packing& packing, Tier tier,
                                int64_t offset) const {
  if (isHome(tier)) return homes_[tier].data() + home(item, step, tier) + offset;
  if (deviceTier_ == Tier::kCpu) return diskStaging(item) + offset;
  return awayBuffer(item) + (tier == Tier::kDisk ? packing.bytes[Tier::kCpu] : 0) + offset;
}

std::vector<HiddenStates::Run> HiddenStates::runs(const Item& item, const BatchStep& step, int64_t firstRow,
                                                  int64_t numRows) const {
  const Packing packing = pack(step);
  std::vector<Run> runs;
  for (size_t n = 0; n < step.active.size(); ++n) {
    const ActiveSlot& active = step.active[n];
    const int64_t first = std::max(active.firstRow, firstRow);
    const int64_t count = std::min(active.lastRow() + 1, firstRow + numRows) - first;
    if (count <= 0) continue;
    std::byte* const data =
        locate(item, step, packing, tierOf(active), packing.offsets[n]) + (first - active.firstRow) * rowBytes_;
    if (!runs.empty() && runs.back().data + runs.back().numRows * rowBytes_ == data) {
      runs.back().numRows += count;
    } else {
      runs.push_back({first - firstRow, count, data});
    }
  }
  return runs;
}

std::vector<const std::byte*> HiddenStates::lastRows(const Item& item, const BatchStep& step) const {
  const Packing packing = pack(step);
  std::vector<const std::byte*> rows;
  for (size_t n = 0; n < step.active.size(); ++n) {
    const ActiveSlot& active = step.active[n];
    rows.push_back(
        locate(item, step, packing, tierOf(active), packing.offsets[n] + (active.numTokens - 1) * rowBytes_));
  }
  return rows;
}

bool HiddenStates::loadsLastOnly(const Item& item, const ActiveSlot& active) const {
  return item.layer == headLayer_ && !active.scorePrompt;
}

// The rows to load from `from`, joined where they touch, as pieces from the start of the batch's rows there.
std::vector<CopyPiece> HiddenStates::loadPieces(const Item& item, const BatchStep& step, const Packing& packing,
                                                Tier from) const {
  std::byte* const source = from == Tier::kDisk ? diskStaging(item) : homes_[from].data() + home(item, step, from);
  std::vector<CopyPiece> pieces;
  for (size_t n = 0; n < step.active.size(); ++n) {
    const ActiveSlot& active = step.active[n];
    if (tierOf(active) != from) continue;
    const int64_t rows = loadsLastOnly(item, active) ? 1 : active.numTokens;
    const int64_t offset = packing.offsets[n] + (active.numTokens - rows) * rowBytes_;
    if (!pieces.empty() && pieces.back().from + pieces.back().bytes == source + offset) {
      pieces.back().bytes += rows * rowBytes_;
    } else {
      pieces.push_back({locate(item, step, packing, from, offset), source + offset, rows * rowBytes_});
    }
  }
  return pieces;
}

// Rows that share a page are read by one request: two would write the same memory.
void HiddenStates::addDiskReads(const Item& item, const BatchStep& step, const Packing& packing, IoBatch& reads) {
  const auto pieces = loadPieces(item, step, packing, Tier::kDisk);
  const std::byte* const base = diskStaging(item);
  for (size_t n = 0; n < pieces.size();) {
    const int64_t begin = pieces[n].from - base;
    int64_t end = begin;
    int64_t useful = 0;
    do {
      end = pieces[n].from - base + pieces[n].bytes;
      useful += pieces[n].bytes;
      ++n;
    } while (n < pieces.size() && roundDown(pieces[n].from - base, kPage) < roundUp(end, kPage));
    const int64_t page = roundDown(begin, kPage);
    reads.read(disk_, home(item, step, Tier::kDisk) + begin, end - begin, diskStaging(item) + page, useful);
  }
}

void HiddenStates::load(const Item& item, const BatchStep& step) {
  const Packing packing = pack(step);
  IoBatch reads(transfer_.io(), &transfer_.meter());
  if (packing.bytes[Tier::kDisk] > 0) addDiskReads(item, step, packing, reads);
  reads.start(step.phase());
  if (deviceTier_ == Tier::kGpu)
    transfer_.copy(step.phase(), Link::kCpuToGpu, loadPieces(item, step, packing, Tier::kCpu));
  reads.wait();
  if (deviceTier_ == Tier::kGpu)
    transfer_.copy(step.phase(), Link::kCpuToGpu, loadPieces(item, step, packing, Tier::kDisk));
}

void HiddenStates::store(const Item& item, const BatchStep& step) {
  const Packing packing = pack(step);
  const int64_t cpuBytes = packing.bytes[Tier::kCpu];
  const int64_t diskBytes = packing.bytes[Tier::kDisk];
  if (deviceTier_ == Tier::kGpu) {
    std::vector<CopyPiece> pieces;
    if (cpuBytes > 0)
      pieces.push_back({homes_[Tier::kCpu].data() + home(item, step, Tier::kCpu), awayBuffer(item), cpuBytes});
    if (diskBytes > 0) pieces.push_back({diskStaging(item), awayBuffer(item) + cpuBytes, diskBytes});
    transfer_.copy(step.phase(), Link::kGpuToCpu, pieces);
  }
  if (diskBytes == 0) return;
  IoBatch write(transfer_.io(), &transfer_.meter());
  write.write(disk_, home(item, step, Tier::kDisk), roundUp(diskBytes, kPage), diskStaging(item), diskBytes);
  write.start(step.phase());
  write.wait();
}

}  // namespace flexplan
