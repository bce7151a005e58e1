// The way of small arrays (positions, rows, sequences) from host memory to the operations that are queued next.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <span>

#include "cuda/handles.h"

namespace flexplan::cuda {

// A ring in pinned memory and its image on the device. What is put is copied before put() returns, and reaches the
// device, in order with the stream, when send() is called. One thread.
class UploadRing {
 public:
  static constexpr int64_t kSegments = 4;
  // The largest array.
  static constexpr int64_t kSegmentBytes = int64_t{2} << 20;
  static constexpr int64_t kBytes = kSegments * kSegmentBytes;

  // host, device: kBytes each.
  UploadRing(CudaApi& api, Stream stream, std::byte* host, std::byte* device);

  // The array's place on the device, for operations queued after the next send() and before a segment's bytes more are
  // put. Throws Error kUnsupported for arrays beyond a segment.
  template <typename T>
  const T* put(std::span<const T> values) {
    return reinterpret_cast<const T*>(
        putBytes(reinterpret_cast<const std::byte*>(values.data()), static_cast<int64_t>(values.size_bytes())));
  }
  // The same for arrays that come again and again, as positions do in every layer: found, they are not sent twice.
  template <typename T>
  const T* putAgain(std::span<const T> values) {
    return reinterpret_cast<const T*>(
        putBytesAgain(reinterpret_cast<const std::byte*>(values.data()), static_cast<int64_t>(values.size_bytes())));
  }
  void send();

  int64_t numSends() const { return numSends_; }

 private:
  struct Recent {
    int64_t begin, bytes;  // positions in the ring, counted on without end
    size_t hash;
  };
  const std::byte* putBytes(const std::byte* data, int64_t bytes);
  const std::byte* putBytesAgain(const std::byte* data, int64_t bytes);
  void enterSegment();

  CudaApi& api_;
  const Stream stream_;
  std::byte* const host_;
  std::byte* const device_;
  int64_t end_ = 0;   // of what was put
  int64_t sent_ = 0;  // of what was sent
  std::deque<OwnedEvent> left_;  // per segment: recorded when the ring went on to the next
  std::array<bool, kSegments> wasLeft_{};
  std::deque<Recent> recent_;
  int64_t numSends_ = 0;
};

}  // namespace flexplan::cuda
