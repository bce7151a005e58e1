#include "model/quantization_cache.h"

#include <unistd.h>

#include <atomic>
#include <cstring>

#include "core/error.h"

namespace flexplan {
namespace {

constexpr int64_t kPage = static_cast<int64_t>(kPageBytes);
constexpr int64_t kChecksumBytes = sizeof(uint64_t);
constexpr int64_t kRowsPerTask = 64;

// A step of splitmix64, which spreads every bit of the word over all of the state.
uint64_t mixed(uint64_t state, uint64_t word) {
  uint64_t z = (state ^ word) * 0xbf58476d1ce4e5b9u;
  z ^= z >> 29;
  return z * 0x94d049bb133111ebu + 0x9e3779b97f4a7c15u;
}

uint64_t checksumOf(const std::byte* data, int64_t bytes, uint64_t state) {
  int64_t at = 0;
  for (; at + kChecksumBytes <= bytes; at += kChecksumBytes) {
    uint64_t word;
    std::memcpy(&word, data + at, sizeof word);
    state = mixed(state, word);
  }
  uint64_t rest = 0;
  std::memcpy(&rest, data + at, static_cast<size_t>(bytes - at));
  return mixed(mixed(state, rest), static_cast<uint64_t>(bytes));
}

}  // namespace

uint64_t rowsChecksum(ThreadPool& pool, const std::byte* rows, int64_t firstRow, int64_t count, int64_t rowBytes) {
  std::atomic<uint64_t> sum{0};
  pool.parallelFor(count, kRowsPerTask, [&](int64_t begin, int64_t end) {
    uint64_t part = 0;
    for (int64_t row = begin; row < end; ++row)
      part += checksumOf(rows + row * rowBytes, rowBytes, static_cast<uint64_t>(firstRow + row) + 1);
    sum.fetch_add(part, std::memory_order_relaxed);
  });
  return sum.load();
}

QuantizationCache::QuantizationCache(std::string path, const std::string& identity,
                                     const std::vector<int64_t>& matrixBytes)
    : path_(std::move(path)), identity_(identity), checksums_(matrixBytes.size()) {
  const auto numChecksums = static_cast<int64_t>(matrixBytes.size()) + 1;
  headerBytes_ = roundUp(static_cast<int64_t>(identity_.size()) + numChecksums * kChecksumBytes, kPage);
  fileBytes_ = headerBytes_;
  for (const int64_t bytes : matrixBytes) {
    offsets_.push_back(fileBytes_);
    fileBytes_ += roundUp(bytes, kPage);
  }
}

QuantizationCache::~QuantizationCache() {
  if (isUnpublished_) DirectFile::discardUnpublished(path_);
}

// identity, checksums of the matrices, checksum of both, zeros to the end of the page
AlignedBuffer QuantizationCache::header() const {
  AlignedBuffer header(static_cast<size_t>(headerBytes_), kPageBytes);
  std::memset(header.data(), 0, header.size());
  const size_t checksumBytes = checksums_.size() * sizeof(uint64_t);
  std::byte* const checksums = header.data() + identity_.size();
  std::memcpy(header.data(), identity_.data(), identity_.size());
  if (checksumBytes > 0) std::memcpy(checksums, checksums_.data(), checksumBytes);
  const uint64_t whole = checksumOf(header.data(), static_cast<int64_t>(identity_.size() + checksumBytes), 0);
  std::memcpy(checksums + checksumBytes, &whole, sizeof whole);
  return header;
}

bool QuantizationCache::open() {
  if (path_.empty() || access(path_.c_str(), R_OK) != 0) return false;
  try {
    file_ = DirectFile::openForReading(path_);
    if (file_.sizeBytes() != fileBytes_) return false;
    AlignedBuffer found(static_cast<size_t>(headerBytes_), kPageBytes);
    file_.read(0, headerBytes_, headerBytes_, found.data());
    if (std::memcmp(found.data(), identity_.data(), identity_.size()) != 0) return false;
    if (!checksums_.empty())
      std::memcpy(checksums_.data(), found.data() + identity_.size(), checksums_.size() * sizeof(uint64_t));
    return std::memcmp(found.data(), header().data(), found.size()) == 0;
  } catch (const Error&) {
    return false;
  }
}

bool QuantizationCache::create() {
  if (path_.empty()) return false;
  file_ = DirectFile::createUnpublished(path_, fileBytes_);
  isUnpublished_ = file_.isOpen();
  return isUnpublished_;
}

bool QuantizationCache::publish() {
  file_.write(0, headerBytes_, header().data());
  const bool published = file_.publish(path_);
  if (published) isUnpublished_ = false;
  return published;
}

void QuantizationCache::remove() {
  file_ = {};
  unlink(path_.c_str());
}

}  // namespace flexplan
