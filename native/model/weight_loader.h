// Brings weights from their files to their homes, a chunk at a time: the model never has to fit into memory to be
// loaded. 4-bit weights come from the quantization cache where it has them. Else they are quantized, and go into a new
// cache file or, where there can be none, those of the disk tier into a spill file.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "model/quantization_cache.h"
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
    size_t index;           // of the matrix in its layer
    size_t quantizedIndex;  // among the quantized ones

    Matrix& matrix() const { return layer->matrices[index]; }
    bool isQuantized() const { return matrix().dtype != source->dtype; }
  };
  // Where quantized rows come from, and where they go besides their homes in memory.
  enum class QuantizedRows : uint8_t { kFromCache, kToCache, kToSpill };

  void plan();
  void planMatrix(const TensorSource& source, const DirectFile& file);
  void placeQuantized();
  std::string cacheIdentity() const;
  bool anyFileIsFresh() const;
  std::vector<std::string> fileVersions() const;
  void layOut(LayerWeights& layer);
  void layOutStream(LayerWeights& layer);
  void takeMemory();
  void loadMatrices();
  void loadVector(const TensorSource& source);
  void loadMatrix(const Planned& planned);
  bool loadCached(const Planned& planned);
  void replaceCache();
  uint64_t quantizeRows(const Planned& planned, int64_t begin, int64_t end, const DirectFile* file, int64_t position);
  void place(const Planned& planned, int64_t row, int64_t count, const std::byte* stored);
  void finishCache(const std::vector<std::string>& versionsBefore);
  const std::byte* readRows(const TensorSource& source, const DirectFile& file, int64_t row, int64_t count);
  const std::byte* readWindow(const DirectFile& file, int64_t offset, int64_t bytes, std::byte* window);
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
  std::optional<QuantizationCache> cache_;
  QuantizedRows quantizedRows_ = QuantizedRows::kToSpill;
  size_t numQuantized_ = 0;
  int64_t quantizedDiskBytes_ = 0;
  int64_t filedDiskBytes_ = 0;
  int64_t vectorFloats_ = 0;
  int64_t vectorFloatsLoaded_ = 0;
  int64_t chunkBytes_ = 0;
  TierBuffer staging_;
  TierBuffer floats_;
  TierBuffer packed_;
};

}  // namespace flexplan
