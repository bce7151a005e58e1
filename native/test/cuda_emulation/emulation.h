// The least of CUDA that the kernels of native/cuda use, on the CPU: each thread of a block is a fiber, blocks run one
// after the other. What a GPU leaves undefined is made to fail: shared memory starts as garbage and is allocated at its
// exact size, asynchronous copies leave garbage until they are awaited, and threads run in an order that the test
// chooses.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define threadIdx (flexplan::cuda::emulation::current().thread)
#define blockIdx (flexplan::cuda::emulation::current().block)
#define blockDim (flexplan::cuda::emulation::current().threads)
#define gridDim (flexplan::cuda::emulation::current().grid)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

namespace flexplan::cuda::emulation {

struct Position {
  dim3 thread, block, threads, grid;
};
// Of the fiber that runs.
const Position& current();
std::byte* sharedMemory();

// In which order the threads of a block get their turns between two barriers. kShuffled: by the seed, each block
// differently.
enum class Order { kForward, kBackward, kShuffled };
void setOrder(Order order, uint64_t seed = 0);

// Runs body as every thread of every block. Throws std::logic_error when threads wait for each other for ever.
void run(dim3 grid, unsigned threads, size_t sharedBytes, const std::function<void()>& body);

void syncThreads();

// Values of all 32 lanes of the warp, in order; the calling lane gives its own. At most kMostLaneBytes each.
constexpr size_t kWarpSize = 32, kMostLaneBytes = 48;
const std::byte* exchangeBytes(const void* mine, size_t bytes);
template <typename T>
const T* exchange(const T& mine) {
  static_assert(sizeof(T) <= kMostLaneBytes);
  return reinterpret_cast<const T*>(exchangeBytes(&mine, sizeof(T)));
}

// cp.async of the calling thread: the 16 bytes at `to` are garbage until a wait covers their group. from == null:
// zeros.
void copyAsync(void* to, const void* from);
void copyAsyncCommit();
// Waits for all but the newest `pending` groups.
void copyAsyncWait(int pending);

}  // namespace flexplan::cuda::emulation

inline void __syncthreads() { flexplan::cuda::emulation::syncThreads(); }
inline void __syncwarp() { flexplan::cuda::emulation::exchange(0); }
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return flexplan::cuda::emulation::exchange(value)[(threadIdx.x % 32) ^ static_cast<unsigned>(mask)];
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return flexplan::cuda::emulation::exchange(value)[lane];
}
inline unsigned __ballot_sync(unsigned, bool value) {
  const bool* const values = flexplan::cuda::emulation::exchange(value);
  unsigned bits = 0;
  for (unsigned lane = 0; lane < 32; ++lane) bits |= static_cast<unsigned>(values[lane]) << lane;
  return bits;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}
