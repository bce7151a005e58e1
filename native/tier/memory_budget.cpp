#include "tier/memory_budget.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace flexplan {
namespace {

// Unpinned before it is freed.
struct HostMemory {
  AlignedBuffer buffer;
  std::shared_ptr<void> pin;
};

}  // namespace

MemoryBudget::Charge::Charge(Charge&& other) noexcept
    : budget_(std::exchange(other.budget_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

MemoryBudget::Charge& MemoryBudget::Charge::operator=(Charge&& other) noexcept {
  if (this == &other) return *this;
  release();
  budget_ = std::exchange(other.budget_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

void MemoryBudget::Charge::release() {
  if (budget_) budget_->give(bytes_);
  budget_ = nullptr;
  bytes_ = 0;
}

MemoryBudget::Charge MemoryBudget::take(int64_t bytes, const std::string& what) {
  const std::lock_guard lock(mutex_);
  if (bytes > capacityBytes_ - usedBytes_) {
    const auto code = tier_ == Tier::kDisk ? ErrorCode::kNoDiskSpace : ErrorCode::kOutOfMemory;
    throw Error(code, "expected at most " + std::to_string(capacityBytes_) + " bytes on the " +
                          kTierNames[static_cast<size_t>(tier_)] + " tier, got " + std::to_string(usedBytes_ + bytes) +
                          " with " + std::to_string(bytes) + " for " + what +
                          "; use smaller batches or move more to another tier");
  }
  usedBytes_ += bytes;
  peakBytes_ = std::max(peakBytes_, usedBytes_);
  return Charge(this, bytes);
}

void MemoryBudget::give(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  usedBytes_ -= bytes;
}

int64_t MemoryBudget::usedBytes() const {
  const std::lock_guard lock(mutex_);
  return usedBytes_;
}

int64_t MemoryBudget::peakBytes() const {
  const std::lock_guard lock(mutex_);
  return peakBytes_;
}

TierBuffer TierBuffer::onHost(MemoryBudget& budget, int64_t bytes, const std::string& what, size_t alignment) {
  if (bytes <= 0) return {};
  const int64_t rounded = roundUp(bytes, static_cast<int64_t>(alignment));
  MemoryBudget::Charge charge = budget.take(rounded, what);
  auto memory = std::make_shared<HostMemory>();
  if (HostPinner* const pinner = budget.pinner()) {
    // Whole pages: none is shared with memory that is pinned or freed apart.
    memory->buffer =
        AlignedBuffer(static_cast<size_t>(roundUp(rounded, int64_t{kPageBytes})), std::max(alignment, kPageBytes));
    memory->pin = pinner->pin(memory->buffer.data(), static_cast<int64_t>(memory->buffer.size()));
  } else {
    memory->buffer = AlignedBuffer(static_cast<size_t>(rounded), alignment);
  }
  std::byte* const data = memory->buffer.data();
  return TierBuffer(std::move(charge), std::move(memory), data);
}

}  // namespace flexplan
