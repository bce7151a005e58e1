// Rows of embedding tables, gathered from whichever tier they lie on.
#pragma once

#include <span>

#include "engine/kv_cache.h"
#include "engine/transfer.h"
#include "model/layers.h"

namespace flexplan {

class EmbeddingReader {
 public:
  // Takes staging memory if one of the tables has disk rows.
  EmbeddingReader(const EmbedLayer& layer, Transfer& transfer, Budgets& budgets);

  // Copies rows of `matrix` (of `layer`), as stored, one after the other to device memory `out`.
  void gather(Phase phase, const LayerWeights& layer, const Matrix& matrix, std::span<const int32_t> rows,
              int64_t rowOffset, std::byte* out);
  // Bytes of the widest table row as stored.
  int64_t widestRowBytes() const { return widestRowBytes_; }

 private:
  // Requests in flight: as many small reads as a disk answers at once.
  static constexpr int64_t kRowsInFlight = 64;
  struct DiskRow {
    int64_t row;
    std::byte* to;
  };
  void gatherFromDisk(Phase phase, const Matrix& matrix, std::span<const DiskRow> wanted);

  Transfer& transfer_;
  int64_t widestRowBytes_ = 0;
  int64_t windowBytes_ = 0;
  TierBuffer staging_;
};

}  // namespace flexplan
