#include "quant/int4.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "core/half.h"

namespace flexplan {
namespace {

// Neighbours of an fp16 number, saturating at the largest finite one.
uint16_t nextFloat16Up(uint16_t half) {
  if (half == 0x7bff) return half;
  if (half == 0x8000) return 0x0001;
  return static_cast<uint16_t>((half & 0x8000) != 0 ? half - 1 : half + 1);
}
uint16_t nextFloat16Down(uint16_t half) {
  return static_cast<uint16_t>(nextFloat16Up(static_cast<uint16_t>(half ^ 0x8000)) ^ 0x8000);
}

uint16_t nearestFloat16(double value) {
  return floatToFloat16(static_cast<float>(std::clamp<double>(value, -kMaxFloat16, kMaxFloat16)));
}

void putNibble(int64_t i, int q, std::byte* group) {
  std::byte& byte = group[kInt4HeaderBytes + i % 16 * 2 + i / 32];
  byte |= static_cast<std::byte>(q << i / 16 % 2 * 4);
}

void quantizeGroup(const float* values, int64_t count, std::byte* group) {
  const auto [lowest, highest] = std::minmax_element(values, values + count);
  encodeInt4Group(values, count, int4Range(*lowest, *highest), group);
}

void dequantizeGroup(const std::byte* group, int64_t count, float* values) {
  uint16_t scaleBits, minBits;
  std::memcpy(&scaleBits, group, 2);
  std::memcpy(&minBits, group + 2, 2);
  const float scale = float16ToFloat(scaleBits), min = float16ToFloat(minBits);
  for (int64_t i = 0; i < count; ++i) {
    const int q = static_cast<int>(group[kInt4HeaderBytes + i % 16 * 2 + i / 32]) >> i / 16 % 2 * 4 & 15;
    // The product is exact in fp32, so this is the same with and without fused multiply-add.
    values[i] = static_cast<float>(q) * scale + min;
  }
}

}  // namespace

Int4Range int4Range(float lowest, float highest) {
  Int4Range range{};
  // -0 becomes 0: which of the two a minimum is depends on the order of comparisons.
  range.minBits = nearestFloat16(lowest + 0.0f);
  if (float16ToFloat(range.minBits) > lowest) range.minBits = nextFloat16Down(range.minBits);
  range.min = float16ToFloat(range.minBits);
  const double scale = (double{highest} - range.min) / kMaxInt4;
  range.scaleBits = nearestFloat16(std::max(scale, 0.0));
  if (float16ToFloat(range.scaleBits) < scale) range.scaleBits = nextFloat16Up(range.scaleBits);
  range.scale = float16ToFloat(range.scaleBits);
  return range;
}

Int4Range nearestInt4Range(double min, double scale) {
  Int4Range range{};
  range.minBits = nearestFloat16(min);
  range.min = float16ToFloat(range.minBits);
  range.scaleBits = nearestFloat16(scale);
  range.scale = float16ToFloat(range.scaleBits);
  return range;
}

void encodeInt4Group(const float* values, int64_t count, const Int4Range& range, std::byte* group) {
  std::memset(group, 0, kInt4GroupBytes);
  std::memcpy(group, &range.scaleBits, 2);
  std::memcpy(group + 2, &range.minBits, 2);
  if (range.scale == 0) return;
  for (int64_t i = 0; i < kInt4GroupSize; ++i) {
    const float steps = (values[std::min(i, count - 1)] - range.min) / range.scale;
    putNibble(i, static_cast<int>(std::nearbyint(std::clamp(steps, 0.0f, kMaxInt4))), group);
  }
}

void quantizeInt4(const float* values, int64_t cols, std::byte* row) {
  for (int64_t col = 0; col < cols; col += kInt4GroupSize, row += kInt4GroupBytes)
    quantizeGroup(values + col, std::min(kInt4GroupSize, cols - col), row);
}

void dequantizeInt4(const std::byte* row, int64_t cols, float* values) {
  for (int64_t col = 0; col < cols; col += kInt4GroupSize, row += kInt4GroupBytes)
    dequantizeGroup(row, std::min(kInt4GroupSize, cols - col), values + col);
}

}  // namespace flexplan
