// The kernels, written once and compiled once per ISA inside that ISA's namespace: each isa_*.cpp includes its vec_*.h,
// defines FLEXPLAN_ISA as the namespace's name, and includes this file. What must not appear here: anything inline from
// outside the namespace (std:: templates too), because the linker keeps one copy of those and could keep the one with
// the wrong instructions.
#include "cpu/kernels.h"
#include "quant/int4.h"
#include "quant/int4_fit.h"

namespace flexplan::cpu::FLEXPLAN_ISA {
namespace {

constexpr int64_t kGroup = 64;
constexpr int kGroupVecs = kGroup / kLanes;

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t roundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

inline Vec zero() { return set1(0.0f); }
inline Vec loadUpTo(const float* p, int64_t n) { return n >= kLanes ? load(p) : loadPartial(p, n); }
inline void storeUpTo(float* p, int64_t n, Vec v) {
  if (n >= kLanes) return store(p, v);
  storePartial(p, n, v);
}

template <DataType kType>
constexpr int64_t groupBytes() {
  return kType == DataType::kInt4 ? kInt4GroupBytes : kType == DataType::kFloat32 ? kGroup * 4 : kGroup * 2;
}

// Calls body.operator()<kType>() for the type that is known only at run time.
template <typename Body>
inline void withType(DataType type, Body&& body) {
  switch (type) {
    case DataType::kFloat32: return body.template operator()<DataType::kFloat32>();
    case DataType::kFloat16: return body.template operator()<DataType::kFloat16>();
    case DataType::kBFloat16: return body.template operator()<DataType::kBFloat16>();
    case DataType::kInt4: return body.template operator()<DataType::kInt4>();
  }
}

// 64 values; p: start of a run of 64 columns.
template <DataType kType>
inline void decodeGroup(const std::byte* p, Vec out[kGroupVecs]) {
  if constexpr (kType == DataType::kInt4) {
    decodeInt4Group(p, out);
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kGroupVecs; ++i) out[i] = decode<kType>(p + i * (groupBytes<kType>() / kGroupVecs));
  }
}

// ---- Units: what one 32-bit lane holds for a product ----------------------------------------------------------------

// One column in fp32.
struct FloatUnits {
  static constexpr int64_t kColumns = 1;
  static constexpr int kVecs = kGroupVecs;  // of a group
  static Vec multiplyAdd(Vec w, Vec x, Vec acc) { return fma(w, x, acc); }
  // kLanes units that begin at p; columns from `cols` on are zero.
  static Vec fromFloats(const float* p, int64_t cols) { return loadUpTo(p, cols); }
  template <DataType kType>
  static Vec decodeVec(const std::byte* p) {
    return decode<kType>(p);
  }
  template <DataType kType>
  static void decodeGroup(const std::byte* p, Vec out[kVecs]) {
    FLEXPLAN_ISA::decodeGroup<kType>(p, out);
  }
};

#if defined(FLEXPLAN_PAIRS)
// A pair of columns in bf16. Sums are fp32.
struct PairUnits {
  static constexpr int64_t kColumns = 2;
  static constexpr int kVecs = kGroupVecs / 2;
  static Vec multiplyAdd(Vec w, Vec x, Vec acc) { return dotPairs(w, x, acc); }
  static Vec fromFloats(const float* p, int64_t cols) {
    return pairsOf(loadUpTo(p, cols), cols > kLanes ? loadUpTo(p + kLanes, cols - kLanes) : zero());
  }
  template <DataType kType>
  static Vec decodeVec(const std::byte* p) {
    return load(reinterpret_cast<const float*>(p));
  }
  template <DataType kType>
  static void decodeGroup(const std::byte* p, Vec out[kVecs]) {
    for (int i = 0; i < kVecs; ++i) out[i] = decodeVec<kType>(p + i * kLanes * 4);
  }
};
constexpr bool multipliesPairs(DataType weight) { return weight == DataType::kBFloat16; }
#else
constexpr bool multipliesPairs(DataType) { return false; }
#endif

// Calls body.operator()<Units, kType>(). pairs: only for weights that are multiplied so. Not for 4-bit weights, which
// are multiplied in 8 bits (product_int8-inl.h): only attention multiplies such rows in fp32.
template <typename Body>
inline void withUnits(DataType weight, [[maybe_unused]] bool pairs, Body&& body) {
  withType(weight, [&]<DataType kType>() {
#if defined(FLEXPLAN_PAIRS)
    if constexpr (multipliesPairs(kType))
      if (pairs) return body.template operator()<PairUnits, kType>();
#endif
    if constexpr (kType != DataType::kInt4) body.template operator()<FloatUnits, kType>();
  });
}

// The last vector of a row, of which n columns exist, reading no byte behind them; other columns are zero.
template <typename Units, DataType kType>
inline Vec decodePartial(const std::byte* p, int64_t n) {
  std::byte last[groupBytes<kType>() / Units::kVecs] = {};
  __builtin_memcpy(last, p, static_cast<size_t>(n * groupBytes<kType>() / kGroup));
  return Units::template decodeVec<kType>(last);
}

// The last n < 64 columns of a row, reading no byte behind them. Fills the vectors that hold one of them; columns
// behind are zero (kInt4: the group's padding).
template <typename Units, DataType kType>
inline void decodeTail(const std::byte* p, int64_t n, Vec out[Units::kVecs]) {
  if constexpr (kType == DataType::kInt4) {
    Units::template decodeGroup<kType>(p, out);
  } else {
    std::byte last[groupBytes<kType>()] = {};
    __builtin_memcpy(last, p, static_cast<size_t>(n * groupBytes<kType>() / kGroup));
    Units::template decodeGroup<kType>(last, out);
  }
}

#include "cpu/product-inl.h"

// ---- Storage <-> fp32 -----------------------------------------------------------------------------------------------

// Writes whole vectors.
template <DataType kType>
void decodeRow(const std::byte* row, int64_t cols, float* out) {
  Vec w[kGroupVecs];
  int64_t col = 0;
  for (; col + kGroup <= cols; col += kGroup, row += groupBytes<kType>()) {
    decodeGroup<kType>(row, w);
#pragma GCC unroll 16
    for (int i = 0; i < kGroupVecs; ++i) store(out + col + i * kLanes, w[i]);
  }
  if (col == cols) return;
  decodeTail<FloatUnits, kType>(row, cols - col, w);
  for (int i = 0; col + i * kLanes < cols; ++i) store(out + col + i * kLanes, w[i]);
}

void toFloat(DataType from, const std::byte* row, int64_t cols, float* out) {
  withType(from, [&]<DataType kType>() {
    const int64_t whole = cols / kGroup * kGroup;
    decodeRow<kType>(row, whole, out);
    if (whole == cols) return;
    Vec tail[kGroupVecs];
    decodeTail<FloatUnits, kType>(row + whole / kGroup * groupBytes<kType>(), cols - whole, tail);
    for (int i = 0; whole + i * kLanes < cols; ++i)
      storeUpTo(out + whole + i * kLanes, cols - whole - i * kLanes, tail[i]);
  });
}

template <void (*kEncode)(Vec, uint16_t*)>
void encodeRow(const float* row, int64_t cols, std::byte* out) {
  int64_t col = 0;
  for (; col + kLanes <= cols; col += kLanes) kEncode(load(row + col), reinterpret_cast<uint16_t*>(out + col * 2));
  if (col == cols) return;
  uint16_t last[kLanes];
  kEncode(loadPartial(row + col, cols - col), last);
  __builtin_memcpy(out + col * 2, last, static_cast<size_t>(cols - col) * 2);
}

#include "cpu/quantize-inl.h"

void fromFloat(DataType to, const float* row, int64_t cols, std::byte* out) {
  switch (to) {
    case DataType::kFloat32: __builtin_memcpy(out, row, static_cast<size_t>(cols) * 4); return;
    case DataType::kFloat16: return encodeRow<encodeFloat16>(row, cols, out);
    case DataType::kBFloat16: return encodeRow<encodeBFloat16>(row, cols, out);
    case DataType::kInt4: return quantizeRow(row, cols, out);
  }
}

// ---- Functions of one value -----------------------------------------------------------------------------------------

// e^x = 2^n e^r, n whole, |r| <= ln(2) / 2: Taylor series to r^7, relative error below 1e-8 before rounding. x is
// clamped to where 2^n is a normal number; NaN stays NaN (it is the second operand).
inline Vec exponential(Vec x) {
  x = min(set1(88.3f), max(set1(-87.3f), x));
  const Vec n = round(mul(x, set1(1.44269504f)));
  // ln(2) in two parts; n times the first is exact.
  const Vec r = fma(n, set1(2.12194440e-4f), fma(n, set1(-0.693359375f), x));
  constexpr float kTaylor[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f, 1.0f};
  Vec sum = set1(kTaylor[0]);
  for (int i = 1; i < 8; ++i) sum = fma(sum, r, set1(kTaylor[i]));
  return timesPowerOf2(sum, n);
}

inline Vec sigmoid(Vec x) { return div(set1(1.0f), add(set1(1.0f), exponential(sub(zero(), x)))); }

// x Phi(x), Phi the normal distribution. For z = |x| / sqrt(2) and t = 1 / (1 + z / 2), erfc(z) = t e^(P(t) - z^2) with
// P interpolated at Chebyshev nodes of 2/15 <= t <= 1: relative error of erfc below 1e-7 before rounding.
inline Vec gelu(Vec x) {
  constexpr float kP[] = {0.167110807f,  -0.799341133f, 1.42959598f,  -1.05039901f, 0.204253058f,
                          -0.144919677f, 0.0824400394f, 0.377064131f, 0.999693239f, -1.26549737f};
  const Vec z = min(set1(13.0f), mul(max(sub(zero(), x), x), set1(0.707106781f)));
  const Vec t = div(set1(1.0f), fma(z, set1(0.5f), set1(1.0f)));
  Vec p = set1(kP[0]);
  for (int i = 1; i < 10; ++i) p = fma(p, t, set1(kP[i]));
  const Vec upperTail = mul(mul(t, set1(0.5f)), exponential(sub(p, mul(z, z))));
  return mul(x, ifNegative(x, upperTail, sub(set1(1.0f), upperTail)));
}

// x (1 + tanh(u)) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
inline Vec geluTanh(Vec x) {
  const Vec cubed = mul(mul(x, x), x);
  return mul(x, sigmoid(mul(set1(1.59576912f), fma(cubed, set1(0.044715f), x))));
}

inline Vec relu(Vec x) { return max(zero(), x); }
inline Vec silu(Vec x) { return mul(x, sigmoid(x)); }

template <Vec (*kFunction)(Vec)>
void activateAll(const float* gate, int64_t count, float* x) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t n = count - i;
    const Vec value = loadUpTo(x + i, n);
    storeUpTo(x + i, n, gate != nullptr ? mul(kFunction(loadUpTo(gate + i, n)), value) : kFunction(value));
  }
}

void activate(Activation f, const float* gate, int64_t count, float* x) {
  switch (f) {
    case Activation::kRelu: return activateAll<relu>(gate, count, x);
    case Activation::kGelu: return activateAll<gelu>(gate, count, x);
    case Activation::kGeluTanh: return activateAll<geluTanh>(gate, count, x);
    case Activation::kSilu: return activateAll<silu>(gate, count, x);
  }
}

void addAll(const float* x, int64_t count, float* y) {
  for (int64_t i = 0; i < count; i += kLanes)
    storeUpTo(y + i, count - i, add(loadUpTo(x + i, count - i), loadUpTo(y + i, count - i)));
}

// ---- Functions of one token -----------------------------------------------------------------------------------------

inline float sumOf(const float* x, int64_t size) {
  Vec sum = zero();
  for (int64_t i = 0; i < size; i += kLanes) sum = add(sum, loadUpTo(x + i, size - i));
  return sumLane(sum);
}

// sum of (x - center)^2
inline float squaresOf(const float* x, float center, int64_t size) {
  Vec sum = zero();
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    const Vec d = sub(load(x + i), set1(center));
    sum = fma(d, d, sum);
  }
  float rest = 0;
  for (; i < size; ++i) rest += (x[i] - center) * (x[i] - center);
  return sumLane(sum) + rest;
}

void layerNorm(const float* x, const float* weight, const float* bias, float epsilon, int64_t size, float* y) {
  const float mean = sumOf(x, size) / static_cast<float>(size);
  const float variance = squaresOf(x, mean, size) / static_cast<float>(size);
  const float inverse = 1.0f / __builtin_sqrtf(variance + epsilon);
  for (int64_t i = 0; i < size; i += kLanes) {
    const int64_t n = size - i;
    const Vec normal = mul(sub(loadUpTo(x + i, n), set1(mean)), set1(inverse));
    storeUpTo(y + i, n, fma(normal, loadUpTo(weight + i, n), bias != nullptr ? loadUpTo(bias + i, n) : zero()));
  }
}

void rmsNorm(const float* x, const float* weight, float epsilon, int64_t size, float* y) {
  const float inverse = 1.0f / __builtin_sqrtf(squaresOf(x, 0, size) / static_cast<float>(size) + epsilon);
  for (int64_t i = 0; i < size; i += kLanes) {
    const int64_t n = size - i;
    storeUpTo(y + i, n, mul(mul(loadUpTo(x + i, n), set1(inverse)), loadUpTo(weight + i, n)));
  }
}

void rope(const float* cosines, const float* sines, int64_t numHeads, int64_t headDim, float* x) {
  const int64_t half = headDim / 2;
  for (int64_t h = 0; h < numHeads; ++h, x += headDim)
    for (int64_t d = 0; d < half; d += kLanes) {
      const int64_t n = half - d;
      const Vec first = loadUpTo(x + d, n), second = loadUpTo(x + half + d, n);
      const Vec cosine = loadUpTo(cosines + d, n), sine = loadUpTo(sines + d, n);
      storeUpTo(x + d, n, sub(mul(first, cosine), mul(second, sine)));
      storeUpTo(x + half + d, n, add(mul(second, cosine), mul(first, sine)));
    }
}

uint64_t readMemory(const std::byte* data, size_t bytes) {
  Vec sums[4] = {zero(), zero(), zero(), zero()};
  constexpr size_t kStep = 4 * sizeof(Vec);
  size_t i = 0;
  for (; i + kStep <= bytes; i += kStep)
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; ++j)
      sums[j] = max(sums[j], load(reinterpret_cast<const float*>(data + i + j * sizeof(Vec))));
  uint64_t rest = 0;
  for (; i < bytes; ++i) rest += static_cast<uint64_t>(data[i]);
  const float highest = maxLane(max(max(sums[0], sums[1]), max(sums[2], sums[3])));
  uint32_t bits;
  __builtin_memcpy(&bits, &highest, sizeof(bits));
  return rest + bits;
}

#include "cpu/attention-inl.h"

constexpr Kernels makeKernels(const char* name) {
  return {name,     tokenLayout, packTokens, multiply,  attend,  attentionScratchFloats,
          toFloat,  fromFloat,   fitInt4,    layerNorm, rmsNorm, addAll,
          activate, rope,        readMemory};
}

}  // namespace
}  // namespace flexplan::cpu::FLEXPLAN_ISA
