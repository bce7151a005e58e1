// Vectors of 16 pairs of bf16, lower column in the lower half of a lane; as Vec, so that they are moved like floats.
// With AVX-512 BF16, or in software.
#pragma once

#include "cpu/vec_avx512.h"

namespace flexplan::cpu::FLEXPLAN_ISA {

#if defined(__AVX512BF16__)

// acc + low * low + high * high, rounded to fp32; subnormal numbers count as zero.
inline Vec dotPairs(Vec w, Vec x, Vec acc) {
  return _mm512_dpbf16_ps(acc, reinterpret_cast<__m512bh>(w), reinterpret_cast<__m512bh>(x));
}
// 32 values in order, rounded to nearest even.
inline Vec pairsOf(Vec first, Vec second) { return reinterpret_cast<Vec>(_mm512_cvtne2ps_pbh(second, first)); }

#else

inline Vec dotPairs(Vec w, Vec x, Vec acc) {
  const auto low = [](Vec v) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(v), 16)); };
  const auto high = [](Vec v) {
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  };
  return fma(low(w), low(x), fma(high(w), high(x), acc));
}
inline __m256i narrowToBFloat16(Vec v) {
  alignas(32) uint16_t narrow[16];
  encodeBFloat16(v, narrow);
  return _mm256_load_si256(reinterpret_cast<const __m256i*>(narrow));
}
inline Vec pairsOf(Vec first, Vec second) {
  return _mm512_castsi512_ps(
      _mm512_inserti64x4(_mm512_castsi256_si512(narrowToBFloat16(first)), narrowToBFloat16(second), 1));
}

#endif

}  // namespace flexplan::cpu::FLEXPLAN_ISA
