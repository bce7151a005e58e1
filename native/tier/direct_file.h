// Files read and written past the page cache, so that a tier of the plan is the disk itself and not spare RAM.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/aligned_buffer.h"
#include "tier/tiers.h"

namespace flexplan {

// The whole pages around bytes [offset, offset + bytes) of a file: what direct I/O has to transfer for them.
struct PageWindow {
  int64_t offset;  // of the first page
  int64_t bytes;   // whole pages
  int64_t skip;    // from the first page to the first useful byte

  static PageWindow around(int64_t offset, int64_t bytes) {
    const int64_t begin = roundDown(offset, int64_t{kPageBytes});
    return {begin, bytes == 0 ? 0 : roundUp(offset + bytes, int64_t{kPageBytes}) - begin, offset - begin};
  }
};

// An open file. Where the file system refuses direct I/O it is buffered, and what was read is dropped from the page
// cache.
class DirectFile {
 public:
  DirectFile() = default;
  // For reading. Throws Error kBadInput when it cannot be opened.
  static DirectFile openForReading(const std::string& path);
  // A new file of `bytes` reserved bytes in `directory`, already unlinked: it is gone when it is closed, however that
  // happens. `what` names its purpose. Throws Error kNoDiskSpace, or kBadInput when the directory cannot be written to.
  static DirectFile createSpill(const std::string& directory, int64_t bytes, const std::string& what);

  DirectFile(DirectFile&& other) noexcept;
  DirectFile& operator=(DirectFile&& other) noexcept;
  ~DirectFile();

  // Transfer whole pages between file and page-aligned memory. A read must yield at least `requiredBytes` of `bytes`,
  // else the file is shorter than its header says: Error kBadInput. Other failures: Error kEngine (no space:
  // kNoDiskSpace).
  void read(int64_t offset, int64_t bytes, int64_t requiredBytes, std::byte* memory) const;
  void write(int64_t offset, int64_t bytes, const std::byte* memory) const;

  int64_t sizeBytes() const;
  bool isOpen() const { return descriptor_ >= 0; }
  bool isDirect() const { return direct_; }
  const std::string& path() const { return path_; }

 private:
  DirectFile(int descriptor, bool direct, std::string path);
  void close();

  int descriptor_ = -1;
  bool direct_ = false;
  std::string path_;
};

}  // namespace flexplan
