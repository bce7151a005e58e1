#include "model/weights.h"

#include <algorithm>

#include "core/error.h"
#include "model/weight_loader.h"

namespace flexplan {

const Matrix* LayerWeights::find(const std::string& role) const {
  const auto found = std::find_if(matrices.begin(), matrices.end(), [&](const Matrix& m) { return m.role == role; });
  return found == matrices.end() ? nullptr : &*found;
}

const VectorView* LayerWeights::findVector(const std::string& role) const {
  const auto found = vectors.find(role);
  return found == vectors.end() ? nullptr : &found->second;
}

Weights::Weights(const ModelShape& shape, const std::vector<TensorSource>& tensors, const Options& options,
                 Device& device, PerTier<std::unique_ptr<MemoryBudget>>& budgets, ThreadPool& pool)
    : hasGpuTier_(device.hasGpuTier()), layers_(static_cast<size_t>(shape.numScheduleLayers())) {
  WeightLoader(*this, shape, tensors, options, device, budgets, pool).load();
}

cpu::WeightMatrix Weights::resolve(const LayerWeights& layer, const Matrix& matrix, const std::byte* buffer) const {
  cpu::WeightMatrix result{matrix.dtype, matrix.cols, {}, 0};
  const auto addPiece = [&](const std::byte* data, int64_t rows) {
    if (rows > 0) result.pieces[result.numPieces++] = {data, rows};
  };
  if (hasGpuTier_) {
    addPiece(layer.homes[Tier::kGpu].data() + matrix.homeOffset[Tier::kGpu], matrix.tierRows[Tier::kGpu]);
    addPiece(buffer + matrix.cpuBufferOffset, matrix.tierRows[Tier::kCpu]);
  } else {
    addPiece(layer.homes[Tier::kCpu].data() + matrix.homeOffset[Tier::kCpu], matrix.tierRows[Tier::kCpu]);
  }
  addPiece(buffer + matrix.diskBufferOffset, matrix.tierRows[Tier::kDisk]);
  return result;
}

}  // namespace flexplan
