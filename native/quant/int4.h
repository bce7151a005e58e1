// 4-bit storage. 64 consecutive values of a row are one group of 36 bytes:
//   fp16 scale | fp16 min | 16 little-endian 16-bit words; value i is nibble i / 16 (lowest first) of word i % 16.
//   value = q * scale + min, q in 0..15
// The order puts 16 neighbouring values into the same nibble of 16 neighbouring words, so that one widening load and a
// shift per 16 values decode a group. The last group of a row is padded with copies of its last value.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/data_type.h"

namespace flexplan {

constexpr int64_t kInt4HeaderBytes = 4;
constexpr float kMaxInt4 = 15.0f;

struct Int4Range {
  uint16_t scaleBits, minBits;  // fp16
  float scale, min;             // the same, widened
};

// The grid for values in [lowest, highest], both finite: min is rounded down and scale up, so that the grid covers the
// range and no value is further than scale / 2 from it. Beyond fp16 (|min| > 65504, or scale > 65504) it saturates.
// scale is 0 when all values equal min.
Int4Range int4Range(float lowest, float highest);

// The grid nearest to the one wanted, saturating like int4Range.
Int4Range nearestInt4Range(double min, double scale);

// One group of `count` <= 64 values, each at the nearest point of the grid.
void encodeInt4Group(const float* values, int64_t count, const Int4Range& range, std::byte* group);

// Scalar meaning of the format; the vector kernels give the same bytes and values.
void quantizeInt4(const float* values, int64_t cols, std::byte* row);
void dequantizeInt4(const std::byte* row, int64_t cols, float* values);

}  // namespace flexplan
