#include "cuda/arena.h"

#include <algorithm>

#include "core/aligned_buffer.h"
#include "core/error.h"
#include "tier/tiers.h"

namespace flexplan::cuda {
namespace {

// For what the driver and cuBLAS load when they first need it: kernels, their local memory.
constexpr int64_t kDriverBytes = int64_t{256} << 20;
constexpr int64_t kLeastSegmentBytes = int64_t{64} << 20;

}  // namespace

Arena::Arena(CudaApi& api, const DeviceInfo& device, int64_t plannedBytes)
    : api_(api), device_(device), plannedBytes_(plannedBytes), grows_(plannedBytes > device.totalBytes) {
  if (grows_) return;
  const int64_t bytes = roundDown(std::min(plannedBytes, api.freeBytes() - kDriverBytes), int64_t{kCacheLineBytes});
  if (bytes > 0) grow(bytes);
}

Arena::~Arena() {
  for (const Segment& segment : segments_) api_.free(segment.begin);
}

bool Arena::grow(int64_t bytes) {
  std::byte* const begin = api_.allocate(bytes);
  if (begin) segments_.push_back({begin, bytes, {{0, bytes}}, {}});
  return begin != nullptr;
}

std::byte* Arena::take(int64_t bytes, int64_t alignment, const std::string& what) {
  const std::lock_guard lock(mutex_);
  for (Segment& segment : segments_) {
    if (std::byte* const memory = takeFrom(segment, bytes, alignment)) return memory;
  }
  const int64_t wanted = std::max(kLeastSegmentBytes, bytes + alignment);
  if (!grows_ || api_.freeBytes() - kDriverBytes < wanted || !grow(wanted)) fail(bytes, what);
  return takeFrom(segments_.back(), bytes, alignment);
}

// The first gap that is large enough. Null when there is none.
std::byte* Arena::takeFrom(Segment& segment, int64_t bytes, int64_t alignment) {
  for (auto gap = segment.gaps.begin(); gap != segment.gaps.end(); ++gap) {
    const auto [offset, size] = *gap;
    const int64_t begin = roundUp(offset, alignment);
    if (begin + bytes > offset + size) continue;
    segment.gaps.erase(gap);
    if (begin > offset) segment.gaps[offset] = begin - offset;
    if (begin + bytes < offset + size) segment.gaps[begin + bytes] = offset + size - begin - bytes;
    segment.used[begin] = bytes;
    return segment.begin + begin;
  }
  return nullptr;
}

// The piece becomes a gap again, one with the gaps before and after it.
void Arena::give(std::byte* memory) noexcept {
  const std::lock_guard lock(mutex_);
  for (Segment& segment : segments_) {
    const auto piece = segment.used.find(memory - segment.begin);
    if (memory < segment.begin || memory >= segment.begin + segment.bytes || piece == segment.used.end()) continue;
    auto [begin, bytes] = *piece;
    segment.used.erase(piece);
    auto after = segment.gaps.lower_bound(begin);
    if (after != segment.gaps.end() && after->first == begin + bytes) {
      bytes += after->second;
      after = segment.gaps.erase(after);
    }
    if (after != segment.gaps.begin()) {
      const auto before = std::prev(after);
      if (before->first + before->second == begin) {
        before->second += bytes;
        return;
      }
    }
    segment.gaps[begin] = bytes;
    return;
  }
}

int64_t Arena::reservedBytes() const {
  const std::lock_guard lock(mutex_);
  int64_t bytes = 0;
  for (const Segment& segment : segments_) bytes += segment.bytes;
  return bytes;
}

void Arena::fail(int64_t bytes, const std::string& what) const {
  int64_t reserved = 0, left = 0;
  for (const Segment& segment : segments_) {
    reserved += segment.bytes;
    for (const auto& [offset, size] : segment.gaps) left += size;
  }
  const std::string plan = grows_ ? "" : " of " + std::to_string(plannedBytes_) + " planned";
  throw Error(ErrorCode::kOutOfMemory,
              "expected " + std::to_string(bytes) + " bytes of GPU memory for " + what + ", got " +
                  std::to_string(std::max<int64_t>(0, bytes - left)) + " too few: " + std::to_string(reserved) +
                  " bytes could be had" + plan + ", and " + std::to_string(api_.freeBytes()) + " of the " +
                  std::to_string(device_.totalBytes) + " of " + device_.name +
                  " are free now; end other programs on this GPU or plan with less --gpu-memory");
}

}  // namespace flexplan::cuda
