// Vectors of 16 floats (AVX-512 F, BW, VL, DQ). Included by one translation unit only.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "core/data_type.h"

namespace flexplan::cpu::avx512 {

using Vec = __m512;
using Quad = __m128;
constexpr int kLanes = 16;
// 6 x 4 accumulators, 4 weights and one x are 29 of 32 registers.
constexpr int kPanelTokens = 6;
constexpr int kFewTokens = 4;

inline __mmask16 firstLanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

inline Vec set1(float value) { return _mm512_set1_ps(value); }
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline Vec loadPartial(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(firstLanes(n), p); }
inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline void storePartial(float* p, int64_t n, Vec v) { _mm512_mask_storeu_ps(p, firstLanes(n), v); }

inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec round(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline Vec timesPowerOf2(Vec a, Vec exponent) { return _mm512_scalef_ps(a, exponent); }
inline Vec ifNegative(Vec sign, Vec then, Vec otherwise) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(sign, _mm512_setzero_ps(), _CMP_LT_OQ), otherwise, then);
}

// The sums of the lanes of four vectors: pairs 2 apart in each 128-bit part, then neighbours, then parts 2 apart, then parts.
inline Quad sum4(Vec a, Vec b, Vec c, Vec d) {
  const Vec ab = add(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  const Vec cd = add(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
  const Vec abcd = add(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
inline float maxLane(Vec a) { return _mm512_reduce_max_ps(a); }
inline float minLane(Vec a) { return _mm512_reduce_min_ps(a); }

template <DataType kType>
Vec decode(const std::byte* p) {
  if constexpr (kType == DataType::kFloat32) {
    return _mm512_loadu_ps(p);
  } else {
    const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    if constexpr (kType == DataType::kFloat16) return _mm512_cvtph_ps(raw);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
  }
}

// A permutation of the table of the group's 16 values looks at 4 bits of each index only, so nibbles need no masking.
inline void decodeInt4Group(const std::byte* p, Vec out[4]) {
  const __m128 header = _mm_cvtph_ps(_mm_loadu_si32(p));
  const Vec q = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const Vec table = fma(q, _mm512_broadcastss_ps(header), _mm512_broadcastss_ps(_mm_movehdup_ps(header)));
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 4)));
  out[0] = _mm512_permutexvar_ps(words, table);
  out[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 4), table);
  out[2] = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 8), table);
  out[3] = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 12), table);
}

inline void encodeFloat16(Vec v, uint16_t* out) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

inline void encodeBFloat16(Vec v, uint16_t* out) {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i chosen = _mm512_mask_blend_epi32(_mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), rounded, quiet);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(_mm512_srli_epi32(chosen, 16)));
}

// q: 64 whole numbers in 0..15, in the order of the values.
inline void packNibbles(const Vec q[4], std::byte* words) {
  const __m512i low = _mm512_or_si512(_mm512_cvtps_epi32(q[0]), _mm512_slli_epi32(_mm512_cvtps_epi32(q[1]), 4));
  const __m512i high = _mm512_or_si512(_mm512_cvtps_epi32(q[2]), _mm512_slli_epi32(_mm512_cvtps_epi32(q[3]), 4));
  const __m512i all = _mm512_or_si512(low, _mm512_slli_epi32(high, 8));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(words), _mm512_cvtepi32_epi16(all));
}

}  // namespace flexplan::cpu::avx512
