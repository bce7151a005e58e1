// Vectors of 16 floats (AVX-512 F, BW, VL, DQ), in the namespace FLEXPLAN_ISA of the translation unit that includes
// this.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "core/data_type.h"

namespace flexplan::cpu::FLEXPLAN_ISA {

using Vec = __m512;
constexpr int kLanes = 16;
constexpr int kLaneLevels = 4;  // kLanes = 2^kLaneLevels
// Tokens of a product's tile: 14 x 2 accumulators, 2 weights and one x are 31 of 32 registers.
constexpr int kTileTokens = 14;
// Accumulators of a product with few tokens, and most tokens that share a weight: 24, 3 weights and one x are 28 of 32
// registers.
constexpr int kFewChains = 24, kFewTileTokens = 8;
// Query rows that share V in registers: 4 x 4 accumulators and 4 vectors of V.
constexpr int kFewTokens = 4;

// Up to so many tokens, converting the weights again for every kFewTileTokens of them costs less than packing them.
// Measured; for pairs with their dot product in software: in hardware multiplying costs less beside packing, so no
// fewer.
#if defined(FLEXPLAN_PAIRS)
constexpr int64_t mostFewTokens(DataType weight) { return weight == DataType::kInt4 ? 8 : 64; }
#else
constexpr int64_t mostFewTokens(DataType weight) { return weight == DataType::kInt4 ? 6 : 56; }
#endif

// The order in which lanes are summed (see sumLanes): the middle two of each four change places. Its own inverse.
constexpr int64_t slotOfLane(int64_t lane) { return lane ^ ((lane ^ lane >> 1) & 1) * 3; }

inline __mmask16 firstLanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }

inline Vec set1(float value) { return _mm512_set1_ps(value); }
inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
inline Vec loadPartial(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(firstLanes(n), p); }
inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
inline void storePartial(float* p, int64_t n, Vec v) { _mm512_mask_storeu_ps(p, firstLanes(n), v); }

// Loaded once for several uses, where the compiler would load it for each.
inline Vec inRegister(Vec v) {
  asm("" : "+v"(v));
  return v;
}

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

inline float sumLane(Vec a) { return _mm512_reduce_add_ps(a); }
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

// The 16 values of a group's grid.
inline Vec int4Values(const std::byte* p) {
  const __m128 header = _mm_cvtph_ps(_mm_loadu_si32(p));
  const Vec q = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return fma(q, _mm512_broadcastss_ps(header), _mm512_broadcastss_ps(_mm_movehdup_ps(header)));
}

// A permutation of 16 values looks at 4 bits of each index only, so nibbles need no masking.
inline void decodeInt4Group(const std::byte* p, Vec out[4]) {
  const Vec table = int4Values(p);
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 4)));
  out[0] = _mm512_permutexvar_ps(words, table);
  out[1] = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 4), table);
  out[2] = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 8), table);
  out[3] = _mm512_permutexvar_ps(_mm512_srli_epi32(words, 12), table);
}

// v[i] lane j <-> v[j] lane i: first inside 4 x 4 blocks, then the blocks.
inline void transpose(Vec v[16]) {
  Vec b[16];
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    const Vec low01 = _mm512_unpacklo_ps(v[i], v[i + 1]), high01 = _mm512_unpackhi_ps(v[i], v[i + 1]);
    const Vec low23 = _mm512_unpacklo_ps(v[i + 2], v[i + 3]), high23 = _mm512_unpackhi_ps(v[i + 2], v[i + 3]);
    b[i] = _mm512_shuffle_ps(low01, low23, 0x44);
    b[i + 1] = _mm512_shuffle_ps(low01, low23, 0xee);
    b[i + 2] = _mm512_shuffle_ps(high01, high23, 0x44);
    b[i + 3] = _mm512_shuffle_ps(high01, high23, 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const Vec even01 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0x88), odd01 = _mm512_shuffle_f32x4(b[i], b[i + 4], 0xdd);
    const Vec even23 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0x88);
    const Vec odd23 = _mm512_shuffle_f32x4(b[i + 8], b[i + 12], 0xdd);
    v[i] = _mm512_shuffle_f32x4(even01, even23, 0x88);
    v[i + 4] = _mm512_shuffle_f32x4(odd01, odd23, 0x88);
    v[i + 8] = _mm512_shuffle_f32x4(even01, even23, 0xdd);
    v[i + 12] = _mm512_shuffle_f32x4(odd01, odd23, 0xdd);
  }
}

// Lane i: the sum of v[i]'s lanes; of each four first 0 + 2 and 1 + 3, then those, then neighbouring fours, and so on.
inline Vec sumLanes(const Vec v[16]) {
  Vec b[8], c[4];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i)
    b[i] = add(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    c[i] = add(_mm512_shuffle_ps(b[2 * i], b[2 * i + 1], 0x44), _mm512_shuffle_ps(b[2 * i], b[2 * i + 1], 0xee));
  const auto fours = [](Vec x, Vec y) {
    return add(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
  };
  return fours(fours(c[0], c[1]), fours(c[2], c[3]));
}

// Lanes 0 to 7: as sumLanes.
inline Vec sumLanesOfHalf(const Vec v[8]) {
  Vec b[4], c[2];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i)
    b[i] = add(_mm512_unpacklo_ps(v[2 * i], v[2 * i + 1]), _mm512_unpackhi_ps(v[2 * i], v[2 * i + 1]));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i)
    c[i] = add(_mm512_shuffle_ps(b[2 * i], b[2 * i + 1], 0x44), _mm512_shuffle_ps(b[2 * i], b[2 * i + 1], 0xee));
  const Vec fours = add(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
  return add(_mm512_shuffle_f32x4(fours, fours, 0x88), _mm512_shuffle_f32x4(fours, fours, 0xdd));
}

// One group of 16 rows, transposed: row r of column c at out[slotOfLane(c % 16) * slotStride + c / 16 * stepStride +
// r]. Nibble n of dword d holds column 2 d + n / 4 + 16 (n % 4).
inline void packInt4Group(const std::byte* const rows[16], int64_t offset, float* out, int64_t slotStride,
                          int64_t stepStride) {
  Vec words[16];
  alignas(64) int32_t headers[16];
#pragma GCC unroll 16
  for (int row = 0; row < 16; ++row) {
    const std::byte* group = rows[row] + offset;
    __builtin_memcpy(&headers[row], group, 4);
    __builtin_prefetch(group + 4 * 36, 0, 2);
    words[row] = _mm512_castps256_ps512(_mm256_loadu_ps(reinterpret_cast<const float*>(group + 4)));
  }
  transpose(words);
  const __m512i header = _mm512_load_si512(headers);
  const Vec scale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(header));
  const Vec min = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(header, 16)));
  const __m512i mask = _mm512_set1_epi32(15);
#pragma GCC unroll 8
  for (int d = 0; d < 8; ++d)
#pragma GCC unroll 8
    for (int n = 0; n < 8; ++n) {
      const __m512i q =
          _mm512_and_si512(_mm512_srli_epi32(_mm512_castps_si512(words[d]), static_cast<unsigned>(4 * n)), mask);
      const int col = 2 * d + n / 4 + n % 4 * 16;
      store(out + slotOfLane(col % kLanes) * slotStride + col / kLanes * stepStride,
            fma(_mm512_cvtepi32_ps(q), scale, min));
    }
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

// ---- Products of bytes: a lane holds a quad, 4 columns of one row ---------------------------------------------------

// Not __m512i, which GCC takes for 64-bit numbers and copies to use as others.
using Ints = int32_t __attribute__((vector_size(64)));

// Rows and tokens of a tile: 4 x 6 accumulators, 4 weights and one x are 29 of 32 registers.
constexpr int kByteTileVecs = 4;
constexpr int kByteTileTokens = 6;

inline __m512i bits(Ints v) { return reinterpret_cast<__m512i>(v); }
inline Ints ints(__m512i v) { return reinterpret_cast<Ints>(v); }
inline Ints broadcast(int32_t value) { return ints(_mm512_set1_epi32(value)); }
inline Ints load(const int32_t* p) { return ints(_mm512_loadu_si512(p)); }
inline void store(int32_t* p, Ints v) { _mm512_storeu_si512(p, bits(v)); }
inline Vec toFloat(Ints v) { return _mm512_cvtepi32_ps(bits(v)); }

#if defined(__AVX512VNNI__)

// Quads that are summed between openSums and closeSums.
constexpr int kQuadsPerSum = 16;
inline Ints openSums(Ints total) { return total; }
// Adds to each lane the products of its 4 unsigned bytes in w and 4 signed ones in x.
inline Ints addProducts(Ints w, Ints x, Ints sums) { return ints(_mm512_dpbusd_epi32(bits(sums), bits(w), bits(x))); }
inline Ints closeSums(Ints sums, Ints) { return sums; }

#else

// Quads that are summed between openSums and closeSums: in 16 bits, 8 · 2 · 15 · 127 is below 2^15.
constexpr int kQuadsPerSum = 8;
inline Ints openSums(Ints) { return Ints{}; }
// Adds to each half of a lane the products of its 2 unsigned bytes in w and 2 signed ones in x.
inline Ints addProducts(Ints w, Ints x, Ints sums) {
  return ints(_mm512_add_epi16(bits(sums), _mm512_maddubs_epi16(bits(w), bits(x))));
}
inline Ints closeSums(Ints sums, Ints total) {
  return total + ints(_mm512_madd_epi16(bits(sums), _mm512_set1_epi16(1)));
}

#endif

inline Ints sumOf(Ints a, Ints b) { return a + b; }
inline Ints lowNibbles(Ints v) { return v & 0x0f0f0f0f; }
inline Ints highNibbles(Ints v) { return v >> 4 & 0x0f0f0f0f; }

// The words of one 4-bit group, out[i] lane r = dword i of row r; two rows to a vector, then 4 x 4 blocks, then the
// blocks.
inline void transposeWords(const std::byte* const rows[16], int64_t offset, Ints out[8]) {
  __m512i pairs[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    const int row = i + (i & 4);
    const auto words = [&](int r) {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[r] + offset + 4));
    };
    pairs[i] = _mm512_inserti64x4(_mm512_castsi256_si512(words(row)), words(row + 4), 1);
  }
  __m512i blocks[8];
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    const __m512i low01 = _mm512_unpacklo_epi32(pairs[i], pairs[i + 1]),
                  high01 = _mm512_unpackhi_epi32(pairs[i], pairs[i + 1]);
    const __m512i low23 = _mm512_unpacklo_epi32(pairs[i + 2], pairs[i + 3]),
                  high23 = _mm512_unpackhi_epi32(pairs[i + 2], pairs[i + 3]);
    blocks[i] = _mm512_unpacklo_epi64(low01, low23);
    blocks[i + 1] = _mm512_unpackhi_epi64(low01, low23);
    blocks[i + 2] = _mm512_unpacklo_epi64(high01, high23);
    blocks[i + 3] = _mm512_unpackhi_epi64(high01, high23);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    out[i] = ints(_mm512_shuffle_i32x4(blocks[i], blocks[i + 4], 0x88));
    out[i + 4] = ints(_mm512_shuffle_i32x4(blocks[i], blocks[i + 4], 0xdd));
  }
}

// Scales and minima of one 4-bit group, a lane for each row.
inline void loadHeaders(const std::byte* const rows[16], int64_t offset, Vec& scale, Vec& min) {
  // Through registers: a load that waits for sixteen narrower stores takes longer than all the rest.
  const auto word = [&](int row) {
    int32_t bits;
    __builtin_memcpy(&bits, rows[row] + offset, 4);
    return bits;
  };
  const __m512i header =
      _mm512_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7), word(8), word(9),
                        word(10), word(11), word(12), word(13), word(14), word(15));
  scale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(header));
  min = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(header, 16)));
}

// 16 words of 16 bits: the low byte from one vector, the high byte from the other; whole numbers in -127..127.
inline void storeBytePairs(Vec low, Vec high, std::byte* out) {
  const __m512i bytes = _mm512_and_si512(_mm512_cvtps_epi32(low), _mm512_set1_epi32(255));
  const __m512i words = _mm512_or_si512(bytes, _mm512_slli_epi32(_mm512_cvtps_epi32(high), 8));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm512_cvtepi32_epi16(words));
}

}  // namespace flexplan::cpu::FLEXPLAN_ISA
