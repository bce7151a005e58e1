// Vectors of 8 floats (AVX2, FMA, F16C). Included by one translation unit only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "core/data_type.h"

namespace flexplan::cpu::avx2 {

using Vec = __m256;
using Quad = __m128;
constexpr int kLanes = 8;
// 3 x 4 accumulators, 3 x and one weight are all 16 registers.
constexpr int kPanelTokens = 3;
constexpr int kFewTokens = 2;

inline __m256i firstLanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline Vec set1(float value) { return _mm256_set1_ps(value); }
inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
inline Vec loadPartial(const float* p, int64_t n) { return _mm256_maskload_ps(p, firstLanes(n)); }
inline void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
inline void storePartial(float* p, int64_t n, Vec v) { _mm256_maskstore_ps(p, firstLanes(n), v); }

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

// The sums of the lanes of four vectors: pairs 2 apart in each 128-bit part, then neighbours, then parts.
inline Quad sum4(Vec a, Vec b, Vec c, Vec d) {
  const Vec ab = add(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
  const Vec cd = add(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
  const Vec abcd = add(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
  return _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1));
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

inline void encodeFloat16(Vec v, uint16_t* out) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

// Keeps the low 16 bits of 8 lanes; they must be below 2^16.
inline __m128i narrow(__m256i lanes) {
  return _mm_packus_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
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

}  // namespace flexplan::cpu::avx2
