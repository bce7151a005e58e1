// A hard cap on the bytes that the engine takes on one tier. Every buffer is charged to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "core/aligned_buffer.h"
#include "tier/tiers.h"

namespace flexplan {

// Prepares host memory for a device that copies it by itself.
class HostPinner {
 public:
  virtual ~HostPinner() = default;
  // Locks whole pages in place until the handle is gone. Null when the system refuses: the memory works, slower.
  virtual std::shared_ptr<void> pin(std::byte* pages, int64_t bytes) = 0;
};

class MemoryBudget {
 public:
  MemoryBudget(Tier tier, int64_t capacityBytes) : tier_(tier), capacityBytes_(capacityBytes) {}
  MemoryBudget(const MemoryBudget&) = delete;
  MemoryBudget& operator=(const MemoryBudget&) = delete;

  // Bytes taken from the budget until the charge is destroyed.
  class Charge {
   public:
    Charge() = default;
    Charge(Charge&& other) noexcept;
    Charge& operator=(Charge&& other) noexcept;
    ~Charge() { release(); }
    int64_t bytes() const { return bytes_; }

   private:
    friend class MemoryBudget;
    Charge(MemoryBudget* budget, int64_t bytes) : budget_(budget), bytes_(bytes) {}
    void release();

    MemoryBudget* budget_ = nullptr;
    int64_t bytes_ = 0;
  };

  // `what` names the buffer in the error. Throws Error kOutOfMemory (disk: kNoDiskSpace) beyond the cap.
  Charge take(int64_t bytes, const std::string& what);

  // Host memory charged from now on is pinned. `pinner` must outlive that memory; null: no longer.
  void pinWith(HostPinner* pinner) { pinner_ = pinner; }
  HostPinner* pinner() const { return pinner_; }

  int64_t usedBytes() const;
  int64_t peakBytes() const;
  int64_t capacityBytes() const { return capacityBytes_; }
  Tier tier() const { return tier_; }

 private:
  void give(int64_t bytes);

  const Tier tier_;
  const int64_t capacityBytes_;
  HostPinner* pinner_ = nullptr;
  mutable std::mutex mutex_;
  int64_t usedBytes_ = 0;
  int64_t peakBytes_ = 0;
};

// Memory of a tier, charged to its budget. An empty buffer has data() == nullptr. Movable.
class TierBuffer {
 public:
  TierBuffer() = default;
  // Memory of another allocator: `owner` frees it.
  TierBuffer(MemoryBudget::Charge charge, std::shared_ptr<void> owner, std::byte* data)
      : charge_(std::move(charge)), owner_(std::move(owner)), data_(data) {}
  // Host memory, rounded up to the alignment; pinned if the budget has a pinner. The budget is asked before the system
  // is; both throw Error kOutOfMemory.
  static TierBuffer onHost(MemoryBudget& budget, int64_t bytes, const std::string& what,
                           size_t alignment = kCacheLineBytes);

  std::byte* data() const { return data_; }
  int64_t bytes() const { return charge_.bytes(); }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  // Declared before the owner, so that the budget gets its bytes back after the memory is free.
  MemoryBudget::Charge charge_;
  std::shared_ptr<void> owner_;
  std::byte* data_ = nullptr;
};

}  // namespace flexplan
