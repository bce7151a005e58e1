// Vectors of 8 floats (AVX2, FMA, F16C). Included by one translation unit only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "core/data_type.h"

namespace flexplan::cpu::avx2 {

using Vec = __m256;
constexpr int kLanes = 8;
constexpr int kLaneLevels = 3;  // kLanes = 2^kLaneLevels
// Tokens of a product's tile: 6 x 2 accumulators, 2 weights and one x are 15 of 16 registers.
constexpr int kTileTokens = 6;
// Accumulators of a product with few tokens, and most tokens that share a weight: 12, 2 weights and one x are 15 of 16
// registers.
constexpr int kFewChains = 12, kFewTileTokens = 6;
// Query rows that share V in registers: 1 x 8 accumulators.
constexpr int kFewTokens = 1;

// Up to so many tokens, converting the weights again for every kFewTileTokens of them costs less than packing them
// (measured).
constexpr int64_t mostFewTokens(DataType weight) { return weight == DataType::kInt4 ? 4 : 32; }

// The order in which lanes are summed (see sumLanes): the middle two of each four change places. Its own inverse.
constexpr int64_t slotOfLane(int64_t lane) { return lane ^ ((lane ^ lane >> 1) & 1) * 3; }

inline __m256i firstLanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Vec set1(float value) { return _mm256_set1_ps(value); }
inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline Vec loadPartial(const float* p, int64_t n) { return _mm256_maskload_ps(p, firstLanes(n)); }
inline void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline void storePartial(float* p, int64_t n, Vec v) { _mm256_maskstore_ps(p, firstLanes(n), v); }

// Loaded once for several uses, where the compiler would load it for each.
inline Vec inRegister(Vec v) {
  asm("" : "+x"(v));
  return v;
}

inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
inline Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
inline Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
inline Vec round(Vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Vec timesPowerOf2(Vec a, Vec exponent) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(exponent), _mm256_set1_epi32(127));
  return mul(a, _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23)));
}
inline Vec ifNegative(Vec sign, Vec then, Vec otherwise) {
  return _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps(sign, _mm256_setzero_ps(), _CMP_LT_OQ));
}

inline float sumLane(Vec a) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}
inline float maxLane(Vec a) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
inline float minLane(Vec a) { return -maxLane(sub(_mm256_setzero_ps(), a)); }

template <DataType kType>
Vec decode(const std::byte* p) {
  if constexpr (kType == DataType::kFloat32) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
  } else {
    const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    if constexpr (kType == DataType::kFloat16) return _mm256_cvtph_ps(raw);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
  }
}

inline void decodeInt4Group(const std::byte* p, Vec out[8]) {
  const __m128 header = _mm_cvtph_ps(_mm_loadu_si32(p));
  const Vec scale = _mm256_broadcastss_ps(header);
  const Vec min = _mm256_broadcastss_ps(_mm_movehdup_ps(header));
  const __m256i mask = _mm256_set1_epi32(15);
  __m256i words[2];
  for (int half = 0; half < 2; ++half)
    words[half] = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 4 + half * 16)));
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const __m256i q = _mm256_and_si256(_mm256_srli_epi32(words[i % 2], i / 2 * 4), mask);
    out[i] = fma(_mm256_cvtepi32_ps(q), scale, min);
  }
}

// Keeps the low 16 bits of 8 lanes; they must be below 2^16.
inline __m128i narrow(__m256i lanes) {
  return _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
}

// v[i] lane j <-> v[j] lane i: first inside 4 x 4 blocks, then the blocks.
inline void transpose(Vec v[8]) {
  Vec b[8];
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    const Vec low01 = _mm256_unpacklo_ps(v[i], v[i + 1]), high01 = _mm256_unpackhi_ps(v[i], v[i + 1]);
    const Vec low23 = _mm256_unpacklo_ps(v[i + 2], v[i + 3]), high23 = _mm256_unpackhi_ps(v[i + 2], v[i + 3]);
    b[i] = _mm256_shuffle_ps(low01, low23, 0x44);
    b[i + 1] = _mm256_shuffle_ps(low01, low23, 0xee);
    b[i + 2] = _mm256_shuffle_ps(high01, high23, 0x44);
    b[i + 3] = _mm256_shuffle_ps(high01, high23, 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
  }
}

// Lane i: the sum of v[i]'s lanes; of each four first 0 + 2 and 1 + 3, then those, then the two fours.
inline Vec sumLanes(const Vec v[8]) {
  Vec b[4], c[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    b[i] = add(_mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    c[i] = add(_mm256_shuffle_ps(b[2 * i], b[2 * i + 1], 0x44), _mm256_shuffle_ps(b[2 * i], b[2 * i + 1], 0xee));
  return add(_mm256_permute2f128_ps(c[0], c[1], 0x20), _mm256_permute2f128_ps(c[0], c[1], 0x31));
}

// Lanes 0 to 3: as sumLanes.
inline Vec sumLanesOfHalf(const Vec v[4]) {
  Vec b[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    b[i] = add(_mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]));
  const Vec c = add(_mm256_shuffle_ps(b[0], b[1], 0x44), _mm256_shuffle_ps(b[0], b[1], 0xee));
  return add(c, _mm256_permute2f128_ps(c, c, 0x01));
}

// One group of 8 rows, transposed: row r of column c at out[slotOfLane(c % 8) * slotStride + c / 8 * stepStride + r].
// Nibble n of dword d holds column 2 d + n / 4 + 16 (n % 4).
inline void packInt4Group(const std::byte* const rows[8], int64_t offset, float* out, int64_t slotStride,
                          int64_t stepStride) {
  Vec words[8];
  alignas(32) int32_t headers[8];
#pragma GCC unroll 8
  for (int row = 0; row < 8; ++row) {
    const std::byte* group = rows[row] + offset;
    __builtin_memcpy(&headers[row], group, 4);
    __builtin_prefetch(group + 4 * 36, 0, 2);
    words[row] = _mm256_loadu_ps(reinterpret_cast<const float*>(group + 4));
  }
  transpose(words);
  const __m256i header = _mm256_load_si256(reinterpret_cast<const __m256i*>(headers));
  const Vec scale = _mm256_cvtph_ps(narrow(_mm256_and_si256(header, _mm256_set1_epi32(0xffff))));
  const Vec min = _mm256_cvtph_ps(narrow(_mm256_srli_epi32(header, 16)));
  const __m256i mask = _mm256_set1_epi32(15);
#pragma GCC unroll 8
  for (int d = 0; d < 8; ++d)
#pragma GCC unroll 8
    for (int n = 0; n < 8; ++n) {
      const __m256i q = _mm256_and_si256(_mm256_srli_epi32(_mm256_castps_si256(words[d]), 4 * n), mask);
      const int col = 2 * d + n / 4 + n % 4 * 16;
      store(out + slotOfLane(col % kLanes) * slotStride + col / kLanes * stepStride,
            fma(_mm256_cvtepi32_ps(q), scale, min));
    }
}

inline void encodeFloat16(Vec v, uint16_t* out) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

inline void encodeBFloat16(Vec v, uint16_t* out) {
  const __m256i bits = _mm256_castps_si256(v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i isNan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i chosen = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, isNan), 16);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), narrow(chosen));
}

// q: 64 whole numbers in 0..15, in the order of the values.
inline void packNibbles(const Vec q[8], std::byte* words) {
  for (int half = 0; half < 2; ++half) {
    __m256i all = _mm256_cvtps_epi32(q[half]);
    for (int nibble = 1; nibble < 4; ++nibble)
      all = _mm256_or_si256(all, _mm256_slli_epi32(_mm256_cvtps_epi32(q[nibble * 2 + half]), nibble * 4));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(words + half * 16), narrow(all));
  }
}

// ---- Products of bytes: a lane holds a quad, 4 columns of one row ---------------------------------------------------

using Ints = __m256i;

// Rows and tokens of a tile: 2 x 6 accumulators, 2 weights, one x and a product are the 16 registers.
constexpr int kByteTileVecs = 2;
constexpr int kByteTileTokens = 6;

inline Ints broadcast(int32_t value) { return _mm256_set1_epi32(value); }
inline Ints load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline void store(int32_t* p, Ints v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
inline Vec toFloat(Ints v) { return _mm256_cvtepi32_ps(v); }

// Quads that are summed between openSums and closeSums: in 16 bits, 8 · 2 · 15 · 127 is below 2^15.
constexpr int kQuadsPerSum = 8;
inline Ints openSums(Ints) { return _mm256_setzero_si256(); }
// Adds to each half of a lane the products of its 2 unsigned bytes in w and 2 signed ones in x.
inline Ints addProducts(Ints w, Ints x, Ints sums) { return _mm256_add_epi16(sums, _mm256_maddubs_epi16(w, x)); }
inline Ints closeSums(Ints sums, Ints total) {
  return _mm256_add_epi32(total, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
}

inline Ints sumOf(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Ints lowNibbles(Ints v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
inline Ints highNibbles(Ints v) { return lowNibbles(_mm256_srli_epi16(v, 4)); }

// The words of one 4-bit group, out[i] lane r = dword i of row r.
inline void transposeWords(const std::byte* const rows[8], int64_t offset, Ints out[8]) {
  Vec words[8];
#pragma GCC unroll 8
  for (int row = 0; row < 8; ++row)
    words[row] = _mm256_loadu_ps(reinterpret_cast<const float*>(rows[row] + offset + 4));
  transpose(words);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) out[i] = _mm256_castps_si256(words[i]);
}

// Scales and minima of one 4-bit group, a lane for each row.
inline void loadHeaders(const std::byte* const rows[8], int64_t offset, Vec& scale, Vec& min) {
  // Through registers: a load that waits for eight narrower stores takes longer than all the rest.
  const auto word = [&](int row) {
    int32_t bits;
    __builtin_memcpy(&bits, rows[row] + offset, 4);
    return bits;
  };
  const __m256i header = _mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7));
  scale = _mm256_cvtph_ps(narrow(_mm256_and_si256(header, _mm256_set1_epi32(0xffff))));
  min = _mm256_cvtph_ps(narrow(_mm256_srli_epi32(header, 16)));
}

// 8 words of 16 bits: the low byte from one vector, the high byte from the other; whole numbers in -127..127.
inline void storeBytePairs(Vec low, Vec high, std::byte* out) {
  const __m256i mask = _mm256_set1_epi32(255);
  const __m256i lowBytes = _mm256_and_si256(_mm256_cvtps_epi32(low), mask);
  const __m256i highBytes = _mm256_and_si256(_mm256_cvtps_epi32(high), mask);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), narrow(_mm256_or_si256(lowBytes, _mm256_slli_epi32(highBytes, 8))));
}

}  // namespace flexplan::cpu::avx2
