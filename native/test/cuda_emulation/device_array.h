// Memory that kernels work on: of the GPU, or, under emulation, of exactly the size asked for, so that a sanitizer sees
// every access beyond it.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <utility>
#include <vector>

#if !defined(FLEXPLAN_CUDA_EMULATION)
#include <cuda_runtime_api.h>
#endif

namespace flexplan::test {

#if defined(FLEXPLAN_CUDA_EMULATION)
inline bool hasGpu() { return true; }
inline void* takeMemory(size_t bytes) { return ::operator new(bytes, std::align_val_t{256}); }
inline void giveMemory(void* memory) { ::operator delete(memory, std::align_val_t{256}); }
inline void copyMemory(void* to, const void* from, size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
#else
inline bool hasGpu() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}
inline void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}
inline void* takeMemory(size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes > 0 ? bytes : 1));
  return memory;
}
inline void giveMemory(void* memory) { cudaFree(memory); }
// Waits for all kernels before it: the default stream.
inline void copyMemory(void* to, const void* from, size_t bytes) {
  check(cudaMemcpy(to, from, bytes, cudaMemcpyDefault));
}
#endif

template <typename T>
class DeviceArray {
 public:
  // offset: elements before the first, so that alignment can be spoilt.
  explicit DeviceArray(const std::vector<T>& values, size_t offset = 0) : size_(values.size()), offset_(offset) {
    memory_ = static_cast<T*>(takeMemory((size_ + offset_) * sizeof(T)));
    copyMemory(data(), values.data(), size_ * sizeof(T));
  }
  DeviceArray(size_t size, const T& value, size_t offset = 0) : DeviceArray(std::vector<T>(size, value), offset) {}
  DeviceArray(DeviceArray&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)), size_(other.size_), offset_(other.offset_) {}
  DeviceArray& operator=(DeviceArray&&) = delete;
  ~DeviceArray() {
    if (memory_) giveMemory(memory_);
  }

  T* data() const { return memory_ + offset_; }
  std::vector<T> values() const {
    std::vector<T> out(size_);
    copyMemory(out.data(), data(), size_ * sizeof(T));
    return out;
  }

 private:
  T* memory_ = nullptr;
  size_t size_, offset_;
};

}  // namespace flexplan::test
