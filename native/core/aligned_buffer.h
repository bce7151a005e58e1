// Memory for tensors: aligned for wide loads and direct I/O, on huge pages where it is large enough to profit.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace flexplan {

constexpr size_t kCacheLineBytes = 64;
constexpr size_t kPageBytes = 4096;

// Owns `size` uninitialised bytes. Movable, not copyable. An empty buffer has data() == nullptr.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // alignment: a power of two; at least 2 MiB for buffers of 2 MiB and more. Throws Error kOutOfMemory.
  explicit AlignedBuffer(size_t size, size_t alignment = kCacheLineBytes);
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;

  std::byte* data() const { return data_.get(); }
  size_t size() const { return size_; }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data_.get());
  }

  // Makes room for at least `size` bytes; what was inside is lost when it has to grow.
  void reserve(size_t size);

 private:
  struct Free {
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte[], Free> data_;
  size_t size_ = 0;
};

}  // namespace flexplan
