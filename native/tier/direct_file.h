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

  // A file of `bytes` reserved bytes that other processes see under `path` only once publish() has been called; until
  // then it has another name beside it. Not open (isOpen) where that is impossible: no space, no right to write, or
  // another process is at work on the same file.
  static DirectFile createUnpublished(const std::string& path, int64_t bytes);
  // Makes what was written last, then puts the file in the place of any that is there. Returns whether it could.
  bool publish(const std::string& path);
  // Takes the other name of a file away that is not to be published; whoever has it open may go on using it.
  static void discardUnpublished(const std::string& path);

  DirectFile(DirectFile&& other) noexcept;
  DirectFile& operator=(DirectFile&& other) noexcept;
  ~DirectFile();

  // Transfer whole pages between file and page-aligned memory. A read must yield at least `requiredBytes` of `bytes`,
  // else the file is shorter than its header says: Error kBadInput. Other failures: Error kEngine (no space:
  // kNoDiskSpace).
  void read(int64_t offset, int64_t bytes, int64_t requiredBytes, std::byte* memory) const;
  void write(int64_t offset, int64_t bytes, const std::byte* memory) const;

  int64_t sizeBytes() const;
  // Changes whenever the file's content may have changed: inode, size, and times of the last changes of content and
  // status, of which the latter cannot be set back.
  std::string version() const;
  // Whether the file was changed in the last moments: another change in the same tick of the clock would not show.
  bool isFresh() const;
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
