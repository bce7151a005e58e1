// One direction between host memory and the GPU.
#pragma once

#include <condition_variable>
#include <mutex>
#include <vector>

#include "cuda/handles.h"
#include "tier/link_channel.h"

namespace flexplan::cuda {

// Large copies cross in chunks on a stream of their own, so that a small one, for which somebody waits, passes between
// two of them. Small pieces that are neighbours on the device are gathered in pinned memory and cross as one.
class CudaLink final : public LinkChannel {
 public:
  static constexpr int64_t kBufferBytes = int64_t{1} << 20;
  static constexpr int64_t kBuffers = 2;

  // direction: kToDevice or kToHost. gather: kBuffers x kBufferBytes of pinned memory.
  CudaLink(CudaApi& api, CopyKind direction, std::byte* gather);
  void copy(std::span<const CopyPiece> pieces) override;

 private:
  const std::byte* onDevice(const CopyPiece& piece) const;
  std::vector<std::span<const CopyPiece>> runsOf(std::vector<CopyPiece>& pieces) const;
  void issue(std::span<const CopyPiece> pieces, std::byte*& buffer);
  void issueLarge(const CopyPiece& piece);
  void copyGathered(std::span<const CopyPiece> run, std::byte*& buffer);
  void crossTogether(std::span<const CopyPiece> run, int64_t bytes, std::byte* buffer);
  std::byte* takeBuffer();
  void giveBack(std::byte*& buffer);
  void finish(Stream stream);

  CudaApi& api_;
  const CopyKind direction_;
  const OwnedStream bulk_, urgent_;
  std::mutex mutex_;
  std::condition_variable bufferIsFree_;
  std::vector<std::byte*> freeBuffers_;
  std::vector<OwnedEvent> freeEvents_;
};

}  // namespace flexplan::cuda
