// 4-bit weights that outlive the engine: a file beside the model (or where the caller says) with every quantized matrix
// whole, so that it serves any placement, and the rows of the disk tier are read in place from it.
//
// The file begins with all that its bytes depend on (the identity: quantizer, tensors, versions of their files), as
// text that is compared and not hashed: a file that has changed never gives stale weights. Then a checksum of each
// matrix, which is checked when the matrix is loaded, and one of all that. Then the matrices, each from a page of its
// own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "tier/direct_file.h"

namespace flexplan {

class QuantizationCache {
 public:
  // path: of the file; "": there is none. matrixBytes: stored bytes of each matrix.
  QuantizationCache(std::string path, const std::string& identity, const std::vector<int64_t>& matrixBytes);

  // Takes a file away that was created and not published.
  ~QuantizationCache();
  QuantizationCache(const QuantizationCache&) = delete;
  QuantizationCache& operator=(const QuantizationCache&) = delete;

  // Opens the file for reading. False where there is none, or one of another identity, or one that is damaged.
  bool open();
  // Begins a new file, which is there for others once publish() is called. False where that is impossible.
  bool create();
  // Where matrix number n begins.
  int64_t offset(size_t n) const { return offsets_[n]; }

  uint64_t checksum(size_t n) const { return checksums_[n]; }
  void setChecksum(size_t n, uint64_t checksum) { checksums_[n] = checksum; }
  // The file is complete and stays. Returns whether it could; the file serves this engine either way.
  bool publish();
  // Takes a file away whose content is not what its checksums say.
  void remove();

  // The open file, which whoever reads its rows takes over.
  DirectFile takeFile() { return std::move(file_); }
  DirectFile& file() { return file_; }

 private:
  AlignedBuffer header() const;

  const std::string path_;
  const std::string identity_;
  std::vector<int64_t> offsets_;
  std::vector<uint64_t> checksums_;
  int64_t headerBytes_;
  int64_t fileBytes_;
  DirectFile file_;
  bool isUnpublished_ = false;
};

// Sum over `count` rows of a checksum of the row and its number: rows may come in any order and in any chunks.
uint64_t rowsChecksum(ThreadPool& pool, const std::byte* rows, int64_t firstRow, int64_t count, int64_t rowBytes);

}  // namespace flexplan
