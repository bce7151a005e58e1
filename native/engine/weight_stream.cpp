#include "engine/weight_stream.h"

#include <algorithm>

namespace flexplan {

WeightStream::WeightStream(const Weights& weights, Transfer& transfer, Budgets& budgets, Trace& trace, bool overlap)
    : weights_(weights),
      transfer_(transfer),
      trace_(trace),
      overlap_(overlap),
      hasGpuTier_(transfer.device().hasGpuTier()) {
  constexpr int64_t kPage = static_cast<int64_t>(kPageBytes);
  for (int64_t j = 0; j < weights.numLayers(); ++j) {
    bufferBytes_ = std::max(bufferBytes_, weights.layer(j).bufferBytes);
    stagingBytes_ = std::max(stagingBytes_, weights.layer(j).diskWindowBytes);
  }
  for (auto& reads : reads_) reads = std::make_unique<IoBatch>(transfer.io(), &transfer.meter());
  if (hasGpuTier_) {
    buffers_ = transfer.device().allocate(kBuffers * bufferBytes_, "weight buffers");
    staging_ = TierBuffer::onHost(*budgets[Tier::kCpu], kBuffers * stagingBytes_, "weight staging", kPage);
  } else {
    buffers_ = transfer.device().allocate(kBuffers * bufferBytes_, "weight buffers", kPage);
  }
}

void WeightStream::beginBlock(int64_t block, int64_t firstVisit, int64_t numSteps, int64_t numVisits) {
  const std::lock_guard lock(mutex_);
  block_ = block;
  firstVisit_ = firstVisit;
  endVisit_ = firstVisit + numSteps * weights_.numLayers();
  numVisits_ = numVisits;
}

int64_t WeightStream::numVisits() const {
  const std::lock_guard lock(mutex_);
  return numVisits_;
}

// Visits past the running block belong to the first step of the next. (When all sequences of a block end early, the one
// or two visits loaded ahead of that were counted as decode and serve the next block's prefill.)
WeightStream::Where WeightStream::where(int64_t visit) const {
  const std::lock_guard lock(mutex_);
  const bool next = visit >= endVisit_;
  const int64_t inBlock = visit - (next ? endVisit_ : firstVisit_);
  const int64_t numLayers = weights_.numLayers();
  return {next ? block_ + 1 : block_, {inBlock / numLayers, inBlock % numLayers, 0, 0}};
}

// Asks for the disk rows of a visit: into its staging area, or without a gpu tier into its weight buffer.
void WeightStream::readDisk(int64_t visit) {
  const LayerWeights& from = layer(visit);
  IoBatch& reads = *reads_[static_cast<size_t>(visit % kBuffers)];
  std::byte* const to = hasGpuTier_ ? staging_.data() + visit % kBuffers * stagingBytes_
                                    : buffers_.data() + visit % kBuffers * bufferBytes_;
  for (const Matrix& matrix : from.matrices) {
    if (matrix.isTable || matrix.tierRows[Tier::kDisk] == 0) continue;
    reads.read(*matrix.file, matrix.homeOffset[Tier::kDisk], matrix.tierBytes(Tier::kDisk), to + matrix.stagingOffset);
  }
  reads.start(where(visit).item.phase());
  numRead_ = visit + 1;
}

void WeightStream::fill(int64_t visit) {
  const LayerWeights& from = layer(visit);
  const Phase phase = where(visit).item.phase();
  std::byte* const buffer = buffers_.data() + visit % kBuffers * bufferBytes_;
  if (numRead_ <= visit) readDisk(visit);
  if (hasGpuTier_ && from.cpuStreamBytes > 0) {
    const CopyPiece piece{buffer, from.homes[Tier::kCpu].data() + from.cpuStreamHomeOffset, from.cpuStreamBytes};
    transfer_.copy(phase, Link::kCpuToGpu, {&piece, 1});
  }
  reads_[static_cast<size_t>(visit % kBuffers)]->wait();
  if (!hasGpuTier_) return;
  // The other staging area is free since the visit before: the disk works on while this one crosses the link.
  if (overlap_ && visit + 1 < numVisits()) readDisk(visit + 1);
  std::vector<CopyPiece> pieces;
  const std::byte* const staging = staging_.data() + visit % kBuffers * stagingBytes_;
  for (const Matrix& matrix : from.matrices) {
    if (matrix.isTable || matrix.tierRows[Tier::kDisk] == 0) continue;
    pieces.push_back({buffer + matrix.diskBufferOffset, staging + matrix.stagingOffset + matrix.diskWindow().skip,
                      matrix.tierBytes(Tier::kDisk)});
  }
  transfer_.copy(phase, Link::kCpuToGpu, pieces);
}

void WeightStream::load(int64_t visit) {
  if (layer(visit).bufferBytes == 0) return;
  const Where at = where(visit);
  trace_.record(Task::kLoadWeights, at.block, at.item, [&] { fill(visit); });
}

void WeightStream::publishComputed(int64_t visit) {
  marks_.note(visit, transfer_.device().mark());
  computed_.publish(visit + 1);
}

void WeightStream::awaitComputed(int64_t visit) {
  computed_.waitFor(visit + 1);
  transfer_.device().await(marks_.of(visit));
}

void WeightStream::loadAll() {
  for (int64_t visit = 0; visit < numVisits(); ++visit) {
    if (visit >= kBuffers) awaitComputed(visit - kBuffers);
    load(visit);
    loaded.publish(visit + 1);
  }
}

void WeightStream::stop() {
  loaded.stop();
  computed_.stop();
}

}  // namespace flexplan
