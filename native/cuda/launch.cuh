// How a kernel is started, under nvcc and under the emulation of native/test/cuda_emulation.
#pragma once

#include <cstdint>

#include "cuda/kernels.h"
#include "cuda/launch_errors.h"
#if defined(__CUDACC__)
#include <cuda_runtime.h>
#else
#include "test/cuda_emulation/emulation.h"
#endif

namespace flexplan::cuda {

constexpr int kWarpSize = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

constexpr int64_t ceilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t roundUp(int64_t a, int64_t b) { return ceilDivide(a, b) * b; }

// The block's shared memory, as many bytes as the launch said; aligned to 16.
__device__ __forceinline__ std::byte* sharedMemory() {
#if defined(__CUDACC__)
  extern __shared__ uint4 memory[];
  return reinterpret_cast<std::byte*>(memory);
#else
  return emulation::sharedMemory();
#endif
}

struct Launch {
  Stream stream;
  int64_t blocksX, blocksY, blocksZ;
  int threads;
  size_t sharedBytes;  // at most 48 KiB, which every GPU gives without being asked
};

// Runs kernel(args...). Throws Error kUnsupported for a grid beyond what GPUs take, kEngine when the launch is refused.
template <typename... Params, typename... Args>
void launch(void (*kernel)(Params...), const Launch& shape, Args... args) {
  constexpr int64_t kMostX = 0x7fffffff, kMostYZ = 65535;
  if (shape.blocksX <= 0 || shape.blocksY <= 0 || shape.blocksZ <= 0) return;
  if (shape.blocksX > kMostX || shape.blocksY > kMostYZ || shape.blocksZ > kMostYZ)
    refuseGrid(shape.blocksX, shape.blocksY, shape.blocksZ);
  const dim3 grid{static_cast<unsigned>(shape.blocksX), static_cast<unsigned>(shape.blocksY),
                  static_cast<unsigned>(shape.blocksZ)};
#if defined(__CUDACC__)
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = shape.sharedBytes;
  config.stream = static_cast<cudaStream_t>(shape.stream);
  const cudaError_t status = cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
  if (status != cudaSuccess) failLaunch(cudaGetErrorName(status), cudaGetErrorString(status));
#else
  emulation::run(grid, static_cast<unsigned>(shape.threads), shape.sharedBytes,
                 [&] { kernel(static_cast<Params>(args)...); });
#endif
}

}  // namespace flexplan::cuda
