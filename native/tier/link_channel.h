// One direction between the cpu tier and the gpu tier.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>

namespace flexplan {

struct CopyPiece {
  std::byte* to;
  const std::byte* from;
  int64_t bytes;
};

inline int64_t totalBytes(std::span<const CopyPiece> pieces) {
  int64_t bytes = 0;
  for (const CopyPiece& piece : pieces) bytes += piece.bytes;
  return bytes;
}

// Copies return when the bytes have arrived. Several threads may copy at once and share the link.
class LinkChannel {
 public:
  virtual ~LinkChannel() = default;
  virtual void copy(std::span<const CopyPiece> pieces) = 0;
};

// The link of the emulated device: memcpy, held to a rate. All users share one timeline, on which each chunk reserves
// its span, so concurrent copies interleave and their sum never exceeds the rate.
class PacedLink final : public LinkChannel {
 public:
  // bytesPerSecond > 0; infinity copies at full speed. Throws Error kBadInput.
  explicit PacedLink(double bytesPerSecond);
  void copy(std::span<const CopyPiece> pieces) override;

 private:
  double reserve(int64_t bytes, double earliest);

  const double bytesPerSecond_;
  const int64_t chunkBytes_;
  std::mutex mutex_;
  double freeAtSeconds_ = 0;
};

}  // namespace flexplan
