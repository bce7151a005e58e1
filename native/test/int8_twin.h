// The product of a row of 4-bit weights and a token, slowly: what rounding the token to 8 bits makes of it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/half.h"
#include "quant/int4.h"

namespace flexplan::test {

struct Int8Product {
  double value = 0, magnitude = 0;  // sum of terms, and of their magnitudes
  double exact = 0;                 // without the rounding of the token
  double mostRounding = 0;          // |value - exact| is no larger, but for what happens in fp32
};

// One group of `count` columns.
inline void addInt8Group(const std::byte* group, const float* x, int64_t count, Int8Product& sum) {
  uint16_t header[2];
  std::memcpy(header, group, sizeof(header));
  const float scale = float16ToFloat(header[0]), min = float16ToFloat(header[1]);
  const double middle = min + 8 * scale;
  float values[kInt4GroupSize], largest = 0x1p-100f;
  dequantizeInt4(group, count, values);
  for (int64_t c = 0; c < count; ++c) largest = std::max(largest, std::abs(x[c]));
  const float unit = largest / 127, perUnit = 127 / largest;
  for (int64_t c = 0; c < count; ++c) {
    // The nearest step: a grid's points are further apart than fp32 rounds.
    const double q = scale == 0 ? 0 : std::nearbyint((static_cast<double>(values[c]) - min) / scale);
    const double aroundMiddle = (q - 8) * scale, whole = std::nearbyint(x[c] * perUnit);
    const double product = aroundMiddle * whole * unit, shift = middle * x[c];
    sum.value += product + shift;
    sum.magnitude += std::abs(product) + std::abs(shift);
    sum.exact += (q * scale + min) * x[c];
    sum.mostRounding += std::abs(aroundMiddle) * unit / 2;
  }
}

inline Int8Product int8Product(const std::byte* row, const float* x, int64_t cols) {
  Int8Product sum;
  for (int64_t col = 0; col < cols; col += kInt4GroupSize, row += kInt4GroupBytes)
    addInt8Group(row, x + col, std::min(kInt4GroupSize, cols - col), sum);
  return sum;
}

// Roundings in fp32 that a term goes through: the token's unit and its inverse, the product with it, up to 18 additions
// in a group, the middle, the group's 3 operations, then the sum of groups and the bias.
inline double int8Depth(int64_t cols) { return 26 + static_cast<double>(cols) / static_cast<double>(kInt4GroupSize); }

}  // namespace flexplan::test
