// Device memory handed out in pieces: taken from the GPU once, so that nothing is allocated while the engine runs.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cuda/cuda_api.h"

namespace flexplan::cuda {

class Arena {
 public:
  // plannedBytes: taken at once, as far as the GPU has it free beside what the driver keeps for itself. Without a plan
  // (more than the GPU has in all) it grows by what is asked for.
  Arena(CudaApi& api, const DeviceInfo& device, int64_t plannedBytes);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // `what` names the buffer in the error. Throws Error kOutOfMemory naming the missing bytes. From any thread.
  std::byte* take(int64_t bytes, int64_t alignment, const std::string& what);
  void give(std::byte* memory) noexcept;

  // Taken from the GPU, used or not.
  int64_t reservedBytes() const;

 private:
  struct Segment {
    std::byte* begin;
    int64_t bytes;
    std::map<int64_t, int64_t> gaps;  // offset -> bytes
    std::map<int64_t, int64_t> used;
  };
  bool grow(int64_t bytes);
  std::byte* takeFrom(Segment& segment, int64_t bytes, int64_t alignment);
  [[noreturn]] void fail(int64_t bytes, const std::string& what) const;

  CudaApi& api_;
  const DeviceInfo device_;
  const int64_t plannedBytes_;
  const bool grows_;
  mutable std::mutex mutex_;
  std::vector<Segment> segments_;
};

}  // namespace flexplan::cuda
