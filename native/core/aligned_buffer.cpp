#include "core/aligned_buffer.h"

#include <algorithm>
#include <cstdlib>
#include <string>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "core/error.h"

namespace flexplan {
namespace {
constexpr size_t kHugePageBytes = size_t{2} << 20;
}

AlignedBuffer::AlignedBuffer(size_t size, size_t alignment) : size_(size) {
  if (size == 0) return;
  const bool huge = size >= kHugePageBytes;
  void* data = nullptr;
  const size_t wanted = std::max({alignment, sizeof(void*), huge ? kHugePageBytes : size_t{1}});
  if (posix_memalign(&data, wanted, size) != 0)
    throw Error(ErrorCode::kOutOfMemory, "expected " + std::to_string(size) +
                                             " bytes of memory, the system refused; free memory or plan with less");
  data_.reset(static_cast<std::byte*>(data));
#if defined(__linux__)
  // Advice only: without huge pages everything still works, slower.
  if (huge) madvise(data, size, MADV_HUGEPAGE);
#endif
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  data_ = std::move(other.data_);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

void AlignedBuffer::reserve(size_t size) {
  if (size <= size_) return;
  *this = AlignedBuffer();
  *this = AlignedBuffer(size);
}

void AlignedBuffer::Free::operator()(std::byte* data) const { std::free(data); }

}  // namespace flexplan
