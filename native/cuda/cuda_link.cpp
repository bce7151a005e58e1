#include "cuda/cuda_link.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace flexplan::cuda {
namespace {

// From here on a copy is large: it keeps the link busy for longer than it takes to start.
constexpr int64_t kLargeBytes = int64_t{256} << 10;
// What a small copy may have to wait for: a fifth of a millisecond at 25 GB/s.
constexpr int64_t kChunkBytes = int64_t{4} << 20;
// Starting a copy costs microseconds, in which a CPU moves so many bytes: smaller pieces are gathered.
constexpr int64_t kGatheredPieceBytes = int64_t{64} << 10;
constexpr size_t kLeastGathered = 3;

}  // namespace

CudaLink::CudaLink(CudaApi& api, CopyKind direction, std::byte* gather)
    : api_(api), direction_(direction), bulk_(api, Urgency::kBulk), urgent_(api, Urgency::kUrgent) {
  for (int64_t n = 0; n < kBuffers; ++n) freeBuffers_.push_back(gather + n * kBufferBytes);
}

const std::byte* CudaLink::onDevice(const CopyPiece& piece) const {
  return direction_ == CopyKind::kToDevice ? piece.to : piece.from;
}

void CudaLink::copy(std::span<const CopyPiece> pieces) {
  std::byte* buffer = nullptr;
  try {
    issue(pieces, buffer);
  } catch (...) {
    // What has been issued still reads and writes the caller's memory, and the buffer.
    api_.finish(urgent_);
    api_.finish(bulk_);
    giveBack(buffer);
    throw;
  }
}

// buffer: the one that is in use, if any.
void CudaLink::issue(std::span<const CopyPiece> pieces, std::byte*& buffer) {
  std::vector<CopyPiece> small;
  bool hasLarge = false;
  for (const CopyPiece& piece : pieces) {
    if (piece.bytes >= kLargeBytes) {
      hasLarge = true;
      issueLarge(piece);
    } else if (piece.bytes > 0) {
      small.push_back(piece);
    }
  }
  bool hasSmall = false;
  for (const std::span<const CopyPiece> run : runsOf(small)) {
    if (run.size() >= kLeastGathered && totalBytes(run) < static_cast<int64_t>(run.size()) * kGatheredPieceBytes) {
      copyGathered(run, buffer);
    } else {
      hasSmall = true;
      for (const CopyPiece& piece : run) api_.copy(piece.to, piece.from, piece.bytes, direction_, urgent_);
    }
  }
  if (hasSmall) finish(urgent_);
  if (hasLarge) finish(bulk_);
}

// Pieces in the order of the device's memory, cut where they are not neighbours there. Copies do not overlap, so their
// order is free.
std::vector<std::span<const CopyPiece>> CudaLink::runsOf(std::vector<CopyPiece>& pieces) const {
  std::ranges::sort(pieces, {}, [&](const CopyPiece& piece) { return onDevice(piece); });
  std::vector<std::span<const CopyPiece>> runs;
  for (size_t begin = 0, end = 0; begin < pieces.size(); begin = end) {
    for (end = begin + 1; end < pieces.size(); ++end) {
      const CopyPiece& last = pieces[end - 1];
      if (onDevice(last) + last.bytes != onDevice(pieces[end])) break;
    }
    runs.push_back(std::span(pieces).subspan(begin, end - begin));
  }
  return runs;
}

void CudaLink::issueLarge(const CopyPiece& piece) {
  for (int64_t at = 0; at < piece.bytes; at += kChunkBytes)
    api_.copy(piece.to + at, piece.from + at, std::min(kChunkBytes, piece.bytes - at), direction_, bulk_);
}

// Neighbours on the device cross together, as many at a time as a buffer holds.
void CudaLink::copyGathered(std::span<const CopyPiece> run, std::byte*& buffer) {
  buffer = takeBuffer();
  while (!run.empty()) {
    size_t count = 0;
    int64_t bytes = 0;
    while (count < run.size() && bytes + run[count].bytes <= kBufferBytes) bytes += run[count++].bytes;
    crossTogether(run.first(count), bytes, buffer);
    run = run.subspan(count);
  }
  giveBack(buffer);
}

std::byte* CudaLink::takeBuffer() {
  std::unique_lock lock(mutex_);
  bufferIsFree_.wait(lock, [&] { return !freeBuffers_.empty(); });
  std::byte* const buffer = freeBuffers_.back();
  freeBuffers_.pop_back();
  return buffer;
}

void CudaLink::giveBack(std::byte*& buffer) {
  if (!buffer) return;
  const std::lock_guard lock(mutex_);
  freeBuffers_.push_back(std::exchange(buffer, nullptr));
  bufferIsFree_.notify_one();
}

void CudaLink::crossTogether(std::span<const CopyPiece> run, int64_t bytes, std::byte* buffer) {
  const bool toDevice = direction_ == CopyKind::kToDevice;
  const auto forEach = [&](auto&& move) {
    std::byte* at = buffer;
    for (const CopyPiece& piece : run) {
      move(piece, at);
      at += piece.bytes;
    }
  };
  if (toDevice)
    forEach(
        [](const CopyPiece& piece, std::byte* at) { std::memcpy(at, piece.from, static_cast<size_t>(piece.bytes)); });
  api_.copy(toDevice ? run.front().to : buffer, toDevice ? buffer : run.front().from, bytes, direction_, urgent_);
  finish(urgent_);
  if (!toDevice)
    forEach([](const CopyPiece& piece, std::byte* at) { std::memcpy(piece.to, at, static_cast<size_t>(piece.bytes)); });
}

// Returns when all that was issued on the stream has arrived.
void CudaLink::finish(Stream stream) {
  std::unique_lock lock(mutex_);
  OwnedEvent event = [&] {
    if (freeEvents_.empty()) return OwnedEvent(api_);
    OwnedEvent last = std::move(freeEvents_.back());
    freeEvents_.pop_back();
    return last;
  }();
  lock.unlock();
  api_.record(event, stream);
  awaitSoon(api_, event);
  lock.lock();
  freeEvents_.push_back(std::move(event));
}

}  // namespace flexplan::cuda
