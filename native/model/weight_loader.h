// Brings weights from their files to their homes, a chunk at a time: the model never has to fit into memory to be
// loaded.
#pragma once

#include <memory>
#include <vector>

#include "model/weights.h"
#include "tier/io_batch.h"

namespace flexplan {

class WeightLoader {
 public:
  WeightLoader(Weights& weights, const ModelShape& shape, const std::vector<TensorSource>& tensors,
               const Weights::Options& options, Device& device, PerTier<std::unique_ptr<MemoryBudget>>& budgets,
               ThreadPool& pool);
  void load();

 private:
  struct Planned {
    const TensorSource* source;
    const DirectFile* file;
    LayerWeights* layer;
    size_t index;  // of the matrix in its layer
  };

  void plan();
  void planMatrix(const TensorSource& source, const DirectFile& file);
  void layOut(LayerWeights& layer);
  void layOutStream(LayerWeights& layer);
  void takeMemory();
  void loadVector(const TensorSource& source);
  void loadMatrix(const Planned& planned);
  void loadRows(const Planned& planned, Tier tier, int64_t firstRow);
  void quantize(const Planned& planned, const std::byte* filed, int64_t count, std::byte* out);
  void spillRows(const Planned& planned, int64_t firstRow);
  const std::byte* readRows(const TensorSource& source, const DirectFile& file, int64_t row, int64_t count);
  void toDevice(std::byte* to, const std::byte* from, int64_t bytes);
  int64_t rowsPerChunk(const TensorSource& source) const;

  Weights& weights_;
  const ModelShape& shape_;
  const std::vector<TensorSource>& tensors_;
  const Weights::Options& options_;
  Device& device_;
  PerTier<std::unique_ptr<MemoryBudget>>& budgets_;
  ThreadPool& pool_;
  IoPool io_;
  std::vector<Planned> planned_;
  int64_t spillBytes_ = 0;
  int64_t filedDiskBytes_ = 0;
  int64_t vectorFloats_ = 0;
  int64_t vectorFloatsLoaded_ = 0;
  int64_t chunkBytes_ = 0;
  TierBuffer staging_;
  TierBuffer floats_;
  TierBuffer packed_;
};

}  // namespace flexplan
