// Where every weight lies: rows at home on three tiers, and the form in which a layer's absent rows are streamed to the
// device.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/device.h"
#include "model/model_shape.h"
#include "tier/direct_file.h"
#include "tier/tiers.h"

namespace flexplan {

// One matrix or table [rows, cols] of a schedule layer. The first rows lie on gpu, the next on cpu, the rest on disk.
struct Matrix {
  std::string role;
  DataType dtype;  // as stored: that of the file, or kInt4
  int64_t rows, cols;
  int64_t rowBytes;
  PerTier<int64_t> tierRows;
  bool isTable;  // read by row where it lies, never streamed

  // Where the rows of each tier begin: in the layer's home buffer of that tier; disk: in `file`.
  PerTier<int64_t> homeOffset{};
  const DirectFile* file = nullptr;
  // Streamed rows: where they begin in a weight buffer. Disk rows also: the first page of their window in the staging
  // area.
  int64_t cpuBufferOffset = 0;
  int64_t diskBufferOffset = 0;
  int64_t stagingOffset = 0;

  int64_t tierBytes(Tier tier) const { return tierRows[tier] * rowBytes; }
  PageWindow diskWindow() const { return PageWindow::around(homeOffset[Tier::kDisk], tierBytes(Tier::kDisk)); }
};

// A bias or norm, in fp32, in device memory.
struct VectorView {
  const float* data;
  int64_t size;
};

struct LayerWeights {
  std::vector<Matrix> matrices;
  PerTier<TierBuffer> homes;  // gpu, cpu
  std::map<std::string, VectorView> vectors;

  // Sizes of what is streamed each time the layer is visited.
  int64_t cpuStreamBytes = 0;
  int64_t cpuStreamHomeOffset = 0;  // the streamed rows are one run of the cpu home
  int64_t diskStreamBytes = 0;
  int64_t diskWindowBytes = 0;  // the same in whole pages
  int64_t bufferBytes = 0;

  // Null when absent.
  const Matrix* find(const std::string& role) const;
  const VectorView* findVector(const std::string& role) const;
};

// Loads a model's weights to their homes and keeps them there.
class Weights {
 public:
  struct Options {
    int weightBits;  // 16: as filed; 4
    std::string spillDirectory;
    std::string quantizationCache;  // file for 4-bit weights that outlives the engine; "": none
  };
  // Reads everything. Throws Error kBadInput (missing or truncated file, wrong shapes), kOutOfMemory, kNoDiskSpace.
  Weights(const ModelShape& shape, const std::vector<TensorSource>& tensors, const Options& options, Device& device,
          PerTier<std::unique_ptr<MemoryBudget>>& budgets, ThreadPool& pool);

  const LayerWeights& layer(int64_t scheduleLayer) const { return layers_[static_cast<size_t>(scheduleLayer)]; }
  int64_t numLayers() const { return static_cast<int64_t>(layers_.size()); }
  // Bytes placed on each tier, vectors included.
  const PerTier<int64_t>& placedBytes() const { return placedBytes_; }

  // The matrix as the kernels take it. `buffer`: the weight buffer that its layer was streamed to (null if nothing is
  // streamed).
  cpu::WeightMatrix resolve(const LayerWeights& layer, const Matrix& matrix, const std::byte* buffer) const;

 private:
  friend class WeightLoader;
  const bool hasGpuTier_;
  std::vector<LayerWeights> layers_;
  std::map<std::string, DirectFile> files_;
  DirectFile quantizedFile_;  // the cache, or a spill file with the disk rows
  MemoryBudget::Charge diskCharge_;
  TierBuffer vectorMemory_;
  PerTier<int64_t> placedBytes_{};
};

}  // namespace flexplan
