#include "tier/direct_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace flexplan {
namespace {

std::string reason(int error) { return std::strerror(error); }

int64_t freeBytesOf(const std::string& directory) {
  struct statvfs stats;
  if (statvfs(directory.c_str(), &stats) != 0) return 0;
  return static_cast<int64_t>(stats.f_bavail) * static_cast<int64_t>(stats.f_frsize);
}

// Switches to direct I/O where the file system allows it.
bool makeDirect(int descriptor) {
  const int flags = fcntl(descriptor, F_GETFL);
  return flags >= 0 && fcntl(descriptor, F_SETFL, flags | O_DIRECT) == 0;
}

std::string unpublishedName(const std::string& path) { return path + ".partial"; }

// Whether `descriptor` still is the file of that name: whoever held the lock before may have published or removed it.
bool isStillNamed(int descriptor, const std::string& name) {
  struct stat opened, named;
  return fstat(descriptor, &opened) == 0 && stat(name.c_str(), &named) == 0 && opened.st_ino == named.st_ino &&
         opened.st_dev == named.st_dev;
}

bool syncFolderOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int descriptor = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool synced = fsync(descriptor) == 0;
  close(descriptor);
  return synced;
}

struct stat statusOf(int descriptor, const std::string& path) {
  struct stat status;
  if (fstat(descriptor, &status) != 0)
    throw Error(ErrorCode::kBadInput,
                "expected the status of " + path + ", got \"" + reason(errno) + "\"; check the file");
  return status;
}

constexpr int64_t kFreshSeconds = 2;

}  // namespace

DirectFile::DirectFile(int descriptor, bool direct, std::string path)
    : descriptor_(descriptor), direct_(direct), path_(std::move(path)) {}

DirectFile DirectFile::openForReading(const std::string& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0)
    throw Error(ErrorCode::kBadInput,
                "expected to read " + path + ", got \"" + reason(errno) + "\"; check the model folder");
  return DirectFile(descriptor, makeDirect(descriptor), path);
}

DirectFile DirectFile::createSpill(const std::string& directory, int64_t bytes, const std::string& what) {
  std::string path = directory + "/flexplan-spill-XXXXXX";
  const int descriptor = mkostemp(path.data(), O_CLOEXEC);
  if (descriptor < 0)
    throw Error(ErrorCode::kBadInput, "expected to create a file for " + what + " in " + directory + ", got \"" +
                                          reason(errno) + "\"; choose a folder that can be written to");
  DirectFile file(descriptor, false, path);
  unlink(path.c_str());
  const int failed = bytes > 0 ? posix_fallocate(descriptor, 0, bytes) : 0;
  if (failed == ENOSPC || failed == EFBIG)
    throw Error(ErrorCode::kNoDiskSpace, "expected " + std::to_string(bytes) + " free bytes for " + what + " in " +
                                             directory + ", got " + std::to_string(freeBytesOf(directory)) +
                                             "; free space or choose another folder");
  if (failed != 0)
    throw Error(ErrorCode::kEngine, "expected to reserve " + std::to_string(bytes) + " bytes for " + what + " in " +
                                        directory + ", got \"" + reason(failed) + "\"; choose another folder");
  file.direct_ = makeDirect(descriptor);
  return file;
}

// What an interrupted writer left is written over by the next one. The lock ends with the process that holds it.
DirectFile DirectFile::createUnpublished(const std::string& path, int64_t bytes) {
  const std::string name = unpublishedName(path);
  const int descriptor = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return {};
  DirectFile file(descriptor, false, path);
  if (flock(descriptor, LOCK_EX | LOCK_NB) != 0 || !isStillNamed(descriptor, name)) return {};
  if (ftruncate(descriptor, 0) != 0 || posix_fallocate(descriptor, 0, bytes) != 0) {
    unlink(name.c_str());
    return {};
  }
  file.direct_ = makeDirect(descriptor);
  return file;
}

bool DirectFile::publish(const std::string& path) {
  return fsync(descriptor_) == 0 && rename(unpublishedName(path).c_str(), path.c_str()) == 0 && syncFolderOf(path);
}

void DirectFile::discardUnpublished(const std::string& path) { unlink(unpublishedName(path).c_str()); }

DirectFile::DirectFile(DirectFile&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), direct_(other.direct_), path_(std::move(other.path_)) {}

DirectFile& DirectFile::operator=(DirectFile&& other) noexcept {
  if (this == &other) return *this;
  close();
  descriptor_ = std::exchange(other.descriptor_, -1);
  direct_ = other.direct_;
  path_ = std::move(other.path_);
  return *this;
}

DirectFile::~DirectFile() { close(); }

void DirectFile::close() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

int64_t DirectFile::sizeBytes() const { return static_cast<int64_t>(statusOf(descriptor_, path_).st_size); }

std::string DirectFile::version() const {
  const struct stat status = statusOf(descriptor_, path_);
  const auto time = [](const timespec& at) { return std::to_string(at.tv_sec) + "." + std::to_string(at.tv_nsec); };
  return std::to_string(status.st_ino) + " " + std::to_string(status.st_size) + " " + time(status.st_mtim) + " " +
         time(status.st_ctim);
}

bool DirectFile::isFresh() const {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return statusOf(descriptor_, path_).st_ctim.tv_sec + kFreshSeconds >= now.tv_sec;
}

void DirectFile::read(int64_t offset, int64_t bytes, int64_t requiredBytes, std::byte* memory) const {
  int64_t done = 0;
  while (done < requiredBytes) {
    const ssize_t got = pread(descriptor_, memory + done, static_cast<size_t>(bytes - done), offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      throw Error(ErrorCode::kEngine, "expected to read " + std::to_string(bytes) + " bytes at " +
                                          std::to_string(offset) + " of " + path_ + ", got \"" + reason(errno) +
                                          "\"; check the disk");
    // Direct I/O moves whole pages until the end of the file.
    if (got == 0 || done % static_cast<int64_t>(kPageBytes) != 0)
      throw Error(ErrorCode::kBadInput, "expected " + path_ + " to have " + std::to_string(offset + requiredBytes) +
                                            " bytes or more, got " + std::to_string(offset + done) +
                                            "; the file is truncated, fetch it again");
    done += got;
  }
  if (!direct_) posix_fadvise(descriptor_, offset, bytes, POSIX_FADV_DONTNEED);
}

void DirectFile::write(int64_t offset, int64_t bytes, const std::byte* memory) const {
  int64_t done = 0;
  while (done < bytes) {
    const ssize_t put = pwrite(descriptor_, memory + done, static_cast<size_t>(bytes - done), offset + done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0)
      throw Error(errno == ENOSPC ? ErrorCode::kNoDiskSpace : ErrorCode::kEngine,
                  "expected to write " + std::to_string(bytes) + " bytes at " + std::to_string(offset) + " of " +
                      path_ + ", got \"" + reason(errno) + "\"; check the disk");
    done += put;
  }
}

}  // namespace flexplan
