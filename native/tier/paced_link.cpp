#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"
#include "tier/clock.h"
#include "tier/link_channel.h"

namespace flexplan {
namespace {

// A chunk is what another user of the link may have to wait for.
constexpr double kChunkSeconds = 60e-6;
constexpr int64_t kMinChunkBytes = 4 << 10;
constexpr int64_t kMaxChunkBytes = 1 << 20;

int64_t chunkBytesAt(double bytesPerSecond) {
  if (!(bytesPerSecond > 0))
    throw Error(ErrorCode::kBadInput, "expected a link rate above 0 bytes per second, got " +
                                          std::to_string(bytesPerSecond) + "; set the rate of both directions");
  return static_cast<int64_t>(
      std::clamp(bytesPerSecond * kChunkSeconds, double{kMinChunkBytes}, double{kMaxChunkBytes}));
}

}  // namespace

PacedLink::PacedLink(double bytesPerSecond)
    : bytesPerSecond_(bytesPerSecond), chunkBytes_(chunkBytesAt(bytesPerSecond)) {}

// When the next `bytes` of a copy that began at `earliest` have crossed. Counting from there, not from now, lets a copy
// that was woken late catch up.
double PacedLink::reserve(int64_t bytes, double earliest) {
  const std::lock_guard lock(mutex_);
  freeAtSeconds_ = std::max(freeAtSeconds_, earliest) + static_cast<double>(bytes) / bytesPerSecond_;
  return freeAtSeconds_;
}

void PacedLink::copy(std::span<const CopyPiece> pieces) {
  const double start = nowSeconds();
  int64_t left = totalBytes(pieces);
  int64_t chunkLeft = 0;
  double arrival = start;
  for (CopyPiece piece : pieces) {
    while (piece.bytes > 0) {
      if (chunkLeft == 0) {
        sleepUntil(arrival, false);
        chunkLeft = std::min(left, chunkBytes_);
        arrival = reserve(chunkLeft, start);
      }
      const int64_t bytes = std::min(piece.bytes, chunkLeft);
      std::memcpy(piece.to, piece.from, static_cast<size_t>(bytes));
      piece.to += bytes;
      piece.from += bytes;
      piece.bytes -= bytes;
      chunkLeft -= bytes;
      left -= bytes;
    }
  }
  sleepUntil(arrival, true);
}

}  // namespace flexplan
