// How numbers are stored, on the GPU: the twin of core/half.h and quant/int4.h.
#pragma once

#include "core/data_type.h"
#include "cuda/launch.cuh"
#if defined(__CUDACC__)
#include <cuda_fp16.h>
#else
#include "core/half.h"
#endif

namespace flexplan::cuda {

constexpr int kInt4Header = 4;    // bytes: fp16 scale, fp16 minimum
constexpr int kInt4Group = 64;    // values
constexpr int kInt4Bytes = 36;    // of a group
constexpr float kMaxHalf = 65504.0f;

// ---- fp16 and bf16: round to nearest even ---------------------------------------------------------------------------

__device__ __forceinline__ float bfloatToFloat(uint16_t bits) {
  return __uint_as_float(static_cast<uint32_t>(bits) << 16);
}
__device__ __forceinline__ uint16_t bfloatFromFloat(float value) {
  const uint32_t bits = __float_as_uint(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
#if defined(__CUDACC__)
__device__ __forceinline__ float halfToFloat(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ __forceinline__ uint16_t halfFromFloat(float value) { return __half_as_ushort(__float2half_rn(value)); }
#else
inline float halfToFloat(uint16_t bits) { return float16ToFloat(bits); }
inline uint16_t halfFromFloat(float value) { return floatToFloat16(value); }
#endif

// Infinities become the largest numbers; NaN stays NaN.
__device__ __forceinline__ float clampToHalf(float value) {
  return value > kMaxHalf ? kMaxHalf : value < -kMaxHalf ? -kMaxHalf : value;
}
// Two numbers in one register, the first in the lower half.
__device__ __forceinline__ uint32_t pairOfHalves(float low, float high) {
#if defined(__CUDACC__)
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
#else
  return halfFromFloat(low) | static_cast<uint32_t>(halfFromFloat(high)) << 16;
#endif
}
// The same, saturating.
__device__ __forceinline__ uint32_t packHalves(float low, float high) {
  return pairOfHalves(clampToHalf(low), clampToHalf(high));
}
__device__ __forceinline__ uint32_t packBFloats(float low, float high) {
  return bfloatFromFloat(low) | static_cast<uint32_t>(bfloatFromFloat(high)) << 16;
}

// ---- int4 -----------------------------------------------------------------------------------------------------------

// Bytes of `cols` values in a row; of 16-bit and 32-bit types any number, of kInt4 padded to whole groups.
template <DataType kType>
__device__ __forceinline__ int64_t bytesOf(int64_t cols) {
  if constexpr (kType == DataType::kFloat32) return cols * 4;
  if constexpr (kType == DataType::kInt4) return (cols + kInt4Group - 1) / kInt4Group * kInt4Bytes;
  return cols * 2;
}

// Scale in the lower half, minimum in the upper.
__device__ __forceinline__ uint32_t int4Header(const std::byte* group) {
  return *reinterpret_cast<const uint32_t*>(group);
}
__device__ __forceinline__ float int4Scale(uint32_t header) { return halfToFloat(static_cast<uint16_t>(header)); }
__device__ __forceinline__ float int4Minimum(uint32_t header) {
  return halfToFloat(static_cast<uint16_t>(header >> 16));
}

// The nibbles at `shift` and `shift` + 16 of `words` as q * scale + minimum, in fp16, rounded once.
__device__ __forceinline__ uint32_t int4Halves(uint32_t words, int shift, uint32_t header) {
  const uint32_t nibbles = words >> shift & 0x000f000fu;
#if defined(__CUDACC__)
  // 0x6400 is 1024, whose last bit is worth 1: the nibble in its place is added exactly.
  const uint32_t offset = nibbles | 0x64006400u, thousand = 0x64006400u;
  const __half2 q = __hsub2(*reinterpret_cast<const __half2*>(&offset), *reinterpret_cast<const __half2*>(&thousand));
  const __half2 range = *reinterpret_cast<const __half2*>(&header);
  const __half2 value = __hfma2(q, __low2half2(range), __high2half2(range));
  return *reinterpret_cast<const uint32_t*>(&value);
#else
  const float scale = int4Scale(header), minimum = int4Minimum(header);
  return packHalves(static_cast<float>(nibbles & 15) * scale + minimum,
                    static_cast<float>(nibbles >> 16) * scale + minimum);
#endif
}

// 0..15 as a float: 2^23, whose last bit is worth 1, less itself.
__device__ __forceinline__ float nibbleToFloat(uint32_t nibble) {
  return __uint_as_float(0x4b000000u | nibble) - 8388608.0f;
}

// ---- One element ----------------------------------------------------------------------------------------------------

// Value `col` of a row.
template <DataType kType>
__device__ __forceinline__ float element(const std::byte* row, int64_t col) {
  if constexpr (kType == DataType::kFloat32) return reinterpret_cast<const float*>(row)[col];
  if constexpr (kType == DataType::kFloat16) return halfToFloat(reinterpret_cast<const uint16_t*>(row)[col]);
  if constexpr (kType == DataType::kBFloat16) return bfloatToFloat(reinterpret_cast<const uint16_t*>(row)[col]);
  if constexpr (kType == DataType::kInt4) {
    const std::byte* const group = row + col / kInt4Group * kInt4Bytes;
    const int i = static_cast<int>(col % kInt4Group);
    const uint32_t word = reinterpret_cast<const uint16_t*>(group + kInt4Header)[i % 16];
    const uint32_t header = int4Header(group);
    return fmaf(nibbleToFloat(word >> i / 16 * 4 & 15), int4Scale(header), int4Minimum(header));
  }
}

template <DataType kType>
__device__ __forceinline__ void setElement(std::byte* row, int64_t col, float value) {
  static_assert(kType != DataType::kInt4);
  if constexpr (kType == DataType::kFloat32) reinterpret_cast<float*>(row)[col] = value;
  if constexpr (kType == DataType::kFloat16) reinterpret_cast<uint16_t*>(row)[col] = halfFromFloat(value);
  if constexpr (kType == DataType::kBFloat16) reinterpret_cast<uint16_t*>(row)[col] = bfloatFromFloat(value);
}

// ---- On the host ----------------------------------------------------------------------------------------------------

// Calls body.operator()<kType>() for the type that is known only at run time.
template <typename Body>
void withType(DataType type, Body&& body) {
  switch (type) {
    case DataType::kFloat32: return body.template operator()<DataType::kFloat32>();
    case DataType::kFloat16: return body.template operator()<DataType::kFloat16>();
    case DataType::kBFloat16: return body.template operator()<DataType::kBFloat16>();
    case DataType::kInt4: return body.template operator()<DataType::kInt4>();
  }
}

inline bool isAligned(const void* pointer, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % static_cast<uintptr_t>(bytes) == 0;
}

}  // namespace flexplan::cuda
