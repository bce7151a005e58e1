// Vectors of 4 floats on any machine (compiler vector extensions). Included by one translation unit only.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/data_type.h"
#include "core/half.h"
#include "quant/int4.h"

namespace flexplan::cpu::generic {

using Vec = float __attribute__((vector_size(16)));
using IntVec = int32_t __attribute__((vector_size(16)));
constexpr int kLanes = 4;
constexpr int kLaneLevels = 2;  // kLanes = 2^kLaneLevels
// Tokens of a product's tile: 4 x 2 accumulators, 2 weights, one x and a product are 12 of the 16 registers that most
// machines have.
constexpr int kTileTokens = 4;
// Accumulators of a product with few tokens, and most tokens that share a weight.
constexpr int kFewChains = 8, kFewTileTokens = 4;
// Query rows that share V in registers.
constexpr int kFewTokens = 1;

// Up to so many tokens, converting the weights again for every kFewTileTokens of them costs less than packing them
// (measured).
constexpr int64_t mostFewTokens(DataType weight) { return weight == DataType::kInt4 ? 4 : 8; }

// The order in which lanes are summed (see sumLanes): the middle two of each four change places. Its own inverse.
constexpr int64_t slotOfLane(int64_t lane) { return lane ^ ((lane ^ lane >> 1) & 1) * 3; }

inline Vec set1(float value) { return Vec{value, value, value, value}; }
inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline Vec loadPartial(const float* p, int64_t n) {
  Vec v{};
  std::memcpy(&v, p, static_cast<size_t>(n) * sizeof(float));
  return v;
}
inline Vec inRegister(Vec v) { return v; }
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof(v)); }
inline void storePartial(float* p, int64_t n, Vec v) { std::memcpy(p, &v, static_cast<size_t>(n) * sizeof(float)); }

inline Vec add(Vec a, Vec b) { return a + b; }
inline Vec sub(Vec a, Vec b) { return a - b; }
inline Vec mul(Vec a, Vec b) { return a * b; }
inline Vec div(Vec a, Vec b) { return a / b; }
inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__FP_FAST_FMAF)
  Vec v;
  for (int i = 0; i < kLanes; ++i) v[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return v;
#else
  return a * b + c;
#endif
}
inline Vec max(Vec a, Vec b) { return a > b ? a : b; }
inline Vec min(Vec a, Vec b) { return a < b ? a : b; }
// Adding 1.5 * 2^23 leaves no bits for a fraction. For |a| < 2^22.
inline Vec round(Vec a) { return (a + 0x1.8p23f) - 0x1.8p23f; }
inline Vec timesPowerOf2(Vec a, Vec exponent) {
  const IntVec bits = (__builtin_convertvector(exponent, IntVec) + 127) << 23;
  Vec power;
  std::memcpy(&power, &bits, sizeof(power));
  return a * power;
}
inline Vec ifNegative(Vec sign, Vec then, Vec otherwise) { return sign < Vec{} ? then : otherwise; }

inline float sumLane(Vec a) { return (a[0] + a[2]) + (a[1] + a[3]); }
inline float maxLane(Vec a) {
  const float low = a[0] > a[1] ? a[0] : a[1], high = a[2] > a[3] ? a[2] : a[3];
  return low > high ? low : high;
}
inline float minLane(Vec a) { return -maxLane(-a); }

template <DataType kType>
Vec decode(const std::byte* p) {
  Vec v;
  if constexpr (kType == DataType::kFloat32) {
    std::memcpy(&v, p, sizeof(v));
  } else {
    uint16_t raw[kLanes];
    std::memcpy(raw, p, sizeof(raw));
    for (int i = 0; i < kLanes; ++i)
      v[i] = kType == DataType::kFloat16 ? float16ToFloat(raw[i]) : bfloat16ToFloat(raw[i]);
  }
  return v;
}

inline void decodeInt4Group(const std::byte* p, Vec out[16]) {
  float values[kInt4GroupSize];
  dequantizeInt4(p, kInt4GroupSize, values);
  for (int i = 0; i < kInt4GroupSize / kLanes; ++i) out[i] = load(values + i * kLanes);
}

// v[i] lane j <-> v[j] lane i
inline void transpose(Vec v[4]) {
  const Vec a = v[0], b = v[1], c = v[2], d = v[3];
  for (int i = 0; i < kLanes; ++i) v[i] = Vec{a[i], b[i], c[i], d[i]};
}

// Lane i: the sum of v[i]'s lanes, 0 + 2 and 1 + 3 first.
inline Vec sumLanes(const Vec v[4]) {
  Vec columns[4] = {v[0], v[1], v[2], v[3]};
  transpose(columns);
  return (columns[0] + columns[2]) + (columns[1] + columns[3]);
}

// Lanes 0 and 1: as sumLanes.
inline Vec sumLanesOfHalf(const Vec v[2]) {
  const Vec all[4] = {v[0], v[1], v[0], v[1]};
  return sumLanes(all);
}

// One group of 4 rows, transposed: row r of column c at out[slotOfLane(c % 4) * slotStride + c / 4 * stepStride + r].
inline void packInt4Group(const std::byte* const rows[4], int64_t offset, float* out, int64_t slotStride,
                          int64_t stepStride) {
  float values[kInt4GroupSize];
  for (int row = 0; row < kLanes; ++row) {
    dequantizeInt4(rows[row] + offset, kInt4GroupSize, values);
    for (int64_t i = 0; i < kInt4GroupSize; ++i)
      out[slotOfLane(i % kLanes) * slotStride + i / kLanes * stepStride + row] = values[i];
  }
}

inline void encodeFloat16(Vec v, uint16_t* out) {
  for (int i = 0; i < kLanes; ++i) out[i] = floatToFloat16(v[i]);
}
inline void encodeBFloat16(Vec v, uint16_t* out) {
  for (int i = 0; i < kLanes; ++i) out[i] = floatToBFloat16(v[i]);
}

// q: 64 whole numbers in 0..15, in the order of the values.
inline void packNibbles(const Vec q[16], std::byte* words) {
  for (int word = 0; word < 16; ++word) {
    uint16_t bits = 0;
    for (int nibble = 0; nibble < 4; ++nibble) {
      const float value = q[nibble * 4 + word / kLanes][word % kLanes];
      bits = static_cast<uint16_t>(bits | static_cast<int>(value) << nibble * 4);
    }
    std::memcpy(words + word * 2, &bits, 2);
  }
}

// ---- Products of bytes: a lane holds a quad, 4 columns of one row ---------------------------------------------------

using Ints = IntVec;
using ShortVec = int16_t __attribute__((vector_size(16)));

// Rows and tokens of a tile.
constexpr int kByteTileVecs = 2;
constexpr int kByteTileTokens = 4;

inline Ints broadcast(int32_t value) { return Ints{value, value, value, value}; }
inline Ints load(const int32_t* p) {
  Ints v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline void store(int32_t* p, Ints v) { std::memcpy(p, &v, sizeof(v)); }
inline Vec toFloat(Ints v) { return __builtin_convertvector(v, Vec); }

// Quads that are summed between openSums and closeSums: in 16 bits, 8 · 2 · 15 · 127 is below 2^15.
constexpr int kQuadsPerSum = 8;
inline Ints openSums(Ints) { return Ints{}; }
// Adds to each half of a lane the products of its 2 unsigned bytes in w, below 16, and 2 signed ones in x.
inline Ints addProducts(Ints w, Ints x, Ints sums) {
  const ShortVec ws = reinterpret_cast<ShortVec>(w), xs = reinterpret_cast<ShortVec>(x);
  return reinterpret_cast<Ints>(reinterpret_cast<ShortVec>(sums) + (ws & 255) * (xs << 8 >> 8) + (ws >> 8) * (xs >> 8));
}
inline Ints closeSums(Ints sums, Ints total) { return total + (sums << 16 >> 16) + (sums >> 16); }

inline Ints sumOf(Ints a, Ints b) { return a + b; }
inline Ints lowNibbles(Ints v) { return v & 0x0f0f0f0f; }
inline Ints highNibbles(Ints v) { return v >> 4 & 0x0f0f0f0f; }

// The words of one 4-bit group, out[i] lane r = dword i of row r.
inline void transposeWords(const std::byte* const rows[4], int64_t offset, Ints out[8]) {
  for (int i = 0; i < 8; ++i)
    for (int row = 0; row < kLanes; ++row) {
      int32_t word;
      std::memcpy(&word, rows[row] + offset + kInt4HeaderBytes + i * 4, 4);
      out[i][row] = word;
    }
}

// Scales and minima of one 4-bit group, a lane for each row.
inline void loadHeaders(const std::byte* const rows[4], int64_t offset, Vec& scale, Vec& min) {
  for (int row = 0; row < kLanes; ++row) {
    uint16_t header[2];
    std::memcpy(header, rows[row] + offset, sizeof(header));
    scale[row] = float16ToFloat(header[0]);
    min[row] = float16ToFloat(header[1]);
  }
}

// 4 words of 16 bits: the low byte from one vector, the high byte from the other; whole numbers in -127..127.
inline void storeBytePairs(Vec low, Vec high, std::byte* out) {
  for (int i = 0; i < kLanes; ++i) {
    const int8_t bytes[2] = {static_cast<int8_t>(low[i]), static_cast<int8_t>(high[i])};
    std::memcpy(out + i * 2, bytes, sizeof(bytes));
  }
}

}  // namespace flexplan::cpu::generic
