#include "cuda/upload_ring.h"

#include <algorithm>
#include <functional>
#include <string_view>

#include "core/error.h"
#include "tier/tiers.h"

namespace flexplan::cuda {
namespace {

constexpr int64_t kAlignment = 16;
// As many as a step has GPU batches, and a few more.
constexpr size_t kMostRecent = 64;

size_t hashOf(const std::byte* data, int64_t bytes) {
  return std::hash<std::string_view>{}({reinterpret_cast<const char*>(data), static_cast<size_t>(bytes)});
}

}  // namespace

UploadRing::UploadRing(CudaApi& api, Stream stream, std::byte* host, std::byte* device)
    : api_(api), stream_(stream), host_(host), device_(device) {
  for (int64_t n = 0; n < kSegments; ++n) left_.emplace_back(api);
}

const std::byte* UploadRing::putBytes(const std::byte* data, int64_t bytes) {
  if (bytes > kSegmentBytes)
    throw Error(ErrorCode::kUnsupported, "expected at most " + std::to_string(kSegmentBytes) +
                                             " bytes of positions or places in one launch, got " +
                                             std::to_string(bytes) + "; use smaller GPU batches");
  end_ = roundUp(end_, kAlignment);
  if (end_ % kSegmentBytes + bytes > kSegmentBytes || (end_ > 0 && end_ % kSegmentBytes == 0)) enterSegment();
  std::byte* const to = host_ + end_ % kBytes;
  std::memcpy(to, data, static_cast<size_t>(bytes));
  const std::byte* const place = device_ + end_ % kBytes;
  end_ += bytes;
  return place;
}

// The segment behind is on its way; the one ahead may be written again when its last copy is done.
void UploadRing::enterSegment() {
  send();
  const int64_t next = roundUp(end_, kSegmentBytes);
  const auto behind = static_cast<size_t>((next / kSegmentBytes - 1) % kSegments);
  const auto ahead = static_cast<size_t>(next / kSegmentBytes % kSegments);
  api_.record(left_[behind], stream_);
  wasLeft_[behind] = true;
  if (wasLeft_[ahead]) awaitSoon(api_, left_[ahead]);
  end_ = sent_ = next;
}

const std::byte* UploadRing::putBytesAgain(const std::byte* data, int64_t bytes) {
  const size_t hash = hashOf(data, bytes);
  // What is found must outlast the segment that the same launch may enter next.
  const int64_t oldest = roundDown(end_, kSegmentBytes) - (kSegments - 2) * kSegmentBytes;
  while (!recent_.empty() && recent_.front().begin < oldest) recent_.pop_front();
  for (const Recent& recent : recent_) {
    if (recent.hash == hash && recent.bytes == bytes &&
        std::memcmp(host_ + recent.begin % kBytes, data, static_cast<size_t>(bytes)) == 0)
      return device_ + recent.begin % kBytes;
  }
  const std::byte* const place = putBytes(data, bytes);
  if (recent_.size() == kMostRecent) recent_.pop_front();
  recent_.push_back({end_ - bytes, bytes, hash});
  return place;
}

void UploadRing::send() {
  if (sent_ == end_) return;
  api_.copy(device_ + sent_ % kBytes, host_ + sent_ % kBytes, end_ - sent_, CopyKind::kToDevice, stream_);
  ++numSends_;
  sent_ = end_;
}

}  // namespace flexplan::cuda
