// 4-bit quantization: the bytes of quantizeInt4 (quant/int4.h).
#pragma once

#include "cuda/storage.cuh"
#include "cuda/warp.cuh"

namespace flexplan::cuda {

// The fp16 number above the one given; the largest stays.
__device__ __forceinline__ uint16_t nextHalfUp(uint16_t half) {
  if (half == 0x7bff) return half;
  if (half == 0x8000) return 0x0001;
  return static_cast<uint16_t>((half & 0x8000) != 0 ? half - 1 : half + 1);
}
__device__ __forceinline__ uint16_t nextHalfDown(uint16_t half) {
  return static_cast<uint16_t>(nextHalfUp(static_cast<uint16_t>(half ^ 0x8000)) ^ 0x8000);
}

// The header of the grid that covers [lowest, highest]: int4Range. In doubles, as there: a rounding of the scale would
// show.
__device__ __forceinline__ uint32_t int4RangeHeader(float lowest, float highest) {
  // -0 becomes 0: which of the two a minimum is depends on the order of comparisons.
  uint16_t minimum = halfFromFloat(clampToHalf(lowest + 0.0f));
  if (halfToFloat(minimum) > lowest) minimum = nextHalfDown(minimum);
  const double wanted = (static_cast<double>(highest) - halfToFloat(minimum)) / 15.0;
  uint16_t scale = halfFromFloat(clampToHalf(static_cast<float>(wanted < 0 ? 0 : wanted)));
  if (halfToFloat(scale) < wanted) scale = nextHalfUp(scale);
  return scale | static_cast<uint32_t>(minimum) << 16;
}

__device__ __forceinline__ uint32_t nearestNibble(float value, float scale, float minimum) {
  if (scale == 0) return 0;
  return static_cast<uint32_t>(rintf(fminf(fmaxf((value - minimum) / scale, 0.0f), 15.0f)));
}

// One warp writes one group of values[0, count), padded with copies of the last.
__device__ __forceinline__ void quantizeGroup(const float* values, int64_t count, std::byte* group) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const float first = values[lane < count ? lane : count - 1];
  const float second = values[lane + 32 < count ? lane + 32 : count - 1];
  const uint32_t header = int4RangeHeader(minLanes(fminf(first, second)), maxLanes(fmaxf(first, second)));
  const float scale = int4Scale(header), minimum = int4Minimum(header);
  // Lane l has nibbles l / 16 and l / 16 + 2 of word l % 16; its neighbour 16 lanes on has the other two.
  const uint32_t mine = nearestNibble(first, scale, minimum) | nearestNibble(second, scale, minimum) << 8;
  const uint32_t other = __shfl_xor_sync(kAllLanes, mine, 16);
  if (lane < 16) reinterpret_cast<uint16_t*>(group + kInt4Header)[lane] = static_cast<uint16_t>(mine | other << 4);
  if (lane == 0) *reinterpret_cast<uint32_t*>(group) = header;
}

}  // namespace flexplan::cuda
