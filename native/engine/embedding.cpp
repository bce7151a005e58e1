#include "engine/embedding.h"

#include <algorithm>
#include <string>

#include "core/error.h"

namespace flexplan {
namespace {
constexpr int64_t kPage = static_cast<int64_t>(kPageBytes);
}

EmbeddingReader::EmbeddingReader(const EmbedLayer& layer, Transfer& transfer, Budgets& budgets) : transfer_(transfer) {
  bool onDisk = false;
  for (const Matrix* const table : {layer.tokens, layer.positions}) {
    if (!table) continue;
    widestRowBytes_ = std::max(widestRowBytes_, table->rowBytes);
    onDisk = onDisk || table->tierRows[Tier::kDisk] > 0;
  }
  windowBytes_ = roundUp(widestRowBytes_, kPage) + kPage;
  if (onDisk)
    staging_ = TierBuffer::onHost(*budgets[Tier::kCpu], kRowsInFlight * windowBytes_, "embedding rows", kPageBytes);
}

void EmbeddingReader::gather(Phase phase, const LayerWeights& layer, const Matrix& matrix,
                             std::span<const int32_t> rows, int64_t rowOffset, std::byte* out) {
  std::vector<CopyPiece> inPlace, fromCpu;
  std::vector<DiskRow> fromDisk;
  const int64_t gpuRows = matrix.tierRows[Tier::kGpu];
  const int64_t memoryRows = gpuRows + matrix.tierRows[Tier::kCpu];
  for (const int32_t id : rows) {
    const int64_t row = id + rowOffset;
    if (row < 0 || row >= matrix.rows)
      throw Error(ErrorCode::kBadInput, "expected a row of " + matrix.role + " below " + std::to_string(matrix.rows) +
                                            ", got " + std::to_string(row) +
                                            "; check the prompts and the model's configuration");
    if (row < gpuRows) {
      inPlace.push_back({out, layer.homes[Tier::kGpu].data() + matrix.homeOffset[Tier::kGpu] + row * matrix.rowBytes,
                         matrix.rowBytes});
    } else if (row < memoryRows) {
      const std::byte* const from = layer.homes[Tier::kCpu].data() + matrix.homeOffset[Tier::kCpu];
      (transfer_.device().hasGpuTier() ? fromCpu : inPlace)
          .push_back({out, from + (row - gpuRows) * matrix.rowBytes, matrix.rowBytes});
    } else {
      fromDisk.push_back({row - memoryRows, out});
    }
    out += matrix.rowBytes;
  }
  Device& device = transfer_.device();
  // Operations before this one may still use the memory that the links fill.
  if (!fromCpu.empty() || !fromDisk.empty()) device.await(device.mark());
  device.copy(inPlace);
  transfer_.copy(phase, Link::kCpuToGpu, fromCpu);
  gatherFromDisk(phase, matrix, fromDisk);
}

void EmbeddingReader::gatherFromDisk(Phase phase, const Matrix& matrix, std::span<const DiskRow> wanted) {
  while (!wanted.empty()) {
    const auto some = wanted.first(std::min(wanted.size(), static_cast<size_t>(kRowsInFlight)));
    wanted = wanted.subspan(some.size());
    IoBatch reads(transfer_.io(), &transfer_.meter());
    std::vector<CopyPiece> pieces;
    std::byte* window = staging_.data();
    for (const DiskRow& row : some) {
      const int64_t offset = matrix.homeOffset[Tier::kDisk] + row.row * matrix.rowBytes;
      reads.read(*matrix.file, offset, matrix.rowBytes, window);
      pieces.push_back({row.to, window + PageWindow::around(offset, 1).skip, matrix.rowBytes});
      window += windowBytes_;
    }
    reads.start(phase);
    reads.wait();
    if (transfer_.device().hasGpuTier()) {
      transfer_.copy(phase, Link::kCpuToGpu, pieces);
    } else {
      Device& device = transfer_.device();
      device.copy(pieces);
      device.await(device.mark());
    }
  }
}

}  // namespace flexplan
