// Sums and maxima over the lanes of a warp. Every lane gets the same bits: the butterfly adds in one order for all.
#pragma once

#include "cuda/launch.cuh"

namespace flexplan::cuda {

// kLanes: a power of two; each run of that many lanes is summed by itself.
template <int kLanes = kWarpSize>
__device__ __forceinline__ float sumLanes(float value) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kAllLanes, value, distance);
  return value;
}
template <int kLanes = kWarpSize>
__device__ __forceinline__ float maxLanes(float value) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}
template <int kLanes = kWarpSize>
__device__ __forceinline__ float minLanes(float value) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2)
    value = fminf(value, __shfl_xor_sync(kAllLanes, value, distance));
  return value;
}

}  // namespace flexplan::cuda
