#include "tier/memory_budget.h"

#include <algorithm>
#include <utility>

#include "core/error.h"

namespace flexplan {

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
  auto memory = std::make_shared<AlignedBuffer>(static_cast<size_t>(rounded), alignment);
  std::byte* const data = memory->data();
  return TierBuffer(std::move(charge), std::move(memory), data);
}

}  // namespace flexplan
