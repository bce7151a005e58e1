// The kernels, written once and compiled once per ISA inside that ISA's namespace: each isa_*.cpp includes its vec_*.h, defines
// FLEXPLAN_ISA as the namespace's name, and includes this file. What must not appear here: anything inline from outside the
// namespace (std:: templates too), because the linker keeps one copy of those and could keep the one with the wrong instructions.
#include "cpu/kernels.h"
#include "quant/int4.h"
#include "quant/int4_fit.h"

namespace flexplan::cpu::FLEXPLAN_ISA {
namespace {

constexpr int64_t kGroup = 64;
constexpr int kGroupVecs = kGroup / kLanes;

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
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

// The last n < kLanes values of a row, reading no byte behind them; other lanes are zero.
template <DataType kType>
inline Vec decodePartial(const std::byte* p, int64_t n) {
  std::byte last[groupBytes<kType>() / kGroupVecs] = {};
  __builtin_memcpy(last, p, static_cast<size_t>(n * groupBytes<kType>() / kGroup));
  return decode<kType>(last);
}

// The last n < 64 values of a row, reading no byte behind them. Fills the vectors that hold one of them; lanes behind are
// zero (kInt4: the group's padding).
template <DataType kType>
inline void decodeTail(const std::byte* p, int64_t n, Vec out[kGroupVecs]) {
  if constexpr (kType == DataType::kInt4) {
    decodeInt4Group(p, out);
  } else {
    std::byte last[groupBytes<kType>()] = {};
    __builtin_memcpy(last, p, static_cast<size_t>(n * groupBytes<kType>() / kGroup));
    decodeGroup<kType>(last, out);
  }
}

// ---- Products ----------------------------------------------------------------------------------------------------------
// The order of additions, which is the same on both ways below: in a block of kColumnBlock columns, lane l chains the products of
// columns l, l + kLanes, ...; the lanes' chains are added one after the other, then the block to the output. Few tokens: lanes
// are columns, nothing is moved. Many tokens: lanes are rows, which reads least per multiply-add, but needs the weights transposed.

// Adds the sum of one block to an output element, which the first block starts from the bias.
inline void addToOutput(float sum, bool first, const float* bias, float* out) {
  *out = (!first ? *out : bias != nullptr ? *bias : 0.0f) + sum;
}

// As many rows as make kLanes accumulators with kTokens tokens: transposing those gives their sums at once.
template <DataType kType, int kTokens>
struct FewTokens {
  static constexpr int kRows = kLanes / kTokens;
  const std::byte* rows[kRows];
  const float* x[kTokens];
  Vec acc[kLanes];  // [kRows][kTokens]

  // Rows and tokens that do not exist repeat the last one.
  FewTokens(const Product& p, int64_t row, int64_t token) {
    for (int r = 0; r < kRows; ++r) rows[r] = p.weight.data + smaller(row + r, p.weight.rows - 1) * p.weight.stride;
    for (int t = 0; t < kTokens; ++t) x[t] = p.x + smaller(token + t, p.tokens - 1) * p.xStride;
  }

  // The sums of one block, [kRows][kTokens].
  Vec multiplyBlock(int64_t begin, int64_t end) {
    for (Vec& v : acc) v = zero();
    int64_t col = begin;
    for (; col + kGroup <= end; col += kGroup)
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        Vec w[kGroupVecs];
        decodeGroup<kType>(rows[r] + col / kGroup * groupBytes<kType>(), w);
#pragma GCC unroll 16
        for (int i = 0; i < kGroupVecs; ++i)
#pragma GCC unroll 4
          for (int t = 0; t < kTokens; ++t) acc[r * kTokens + t] = fma(w[i], load(x[t] + col + i * kLanes), acc[r * kTokens + t]);
      }
    if (col < end) multiplyTail(col, end - col);
    transpose(acc);
    Vec sum = acc[0];
#pragma GCC unroll 16
    for (int l = 1; l < kLanes; ++l) sum = add(sum, acc[l]);
    return sum;
  }

  void multiplyTail(int64_t col, int64_t cols) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      Vec w[kGroupVecs];
      decodeTail<kType>(rows[r] + col / kGroup * groupBytes<kType>(), cols, w);
      for (int i = 0; i * kLanes < cols; ++i)
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t)
          acc[r * kTokens + t] = fma(w[i], loadUpTo(x[t] + col + i * kLanes, cols - i * kLanes), acc[r * kTokens + t]);
    }
  }
};

template <DataType kType, int kTokens>
void multiplyFewTokens(const Product& p, int64_t row, int64_t token) {
  FewTokens<kType, kTokens> few(p, row, token);
  const int64_t rows = smaller(few.kRows, p.weight.rows - row), tokens = smaller(kTokens, p.tokens - token);
  for (int64_t col = 0; col < p.weight.cols; col += kColumnBlock) {
    float sums[kLanes];
    store(sums, few.multiplyBlock(col, smaller(col + kColumnBlock, p.weight.cols)));
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t t = 0; t < tokens; ++t)
        addToOutput(sums[r * kTokens + t], col == 0, p.bias != nullptr ? p.bias + row + r : nullptr,
                    p.out + (token + t) * p.outStride + row + r);
  }
}

template <DataType kType, int kTokens>
void multiplyFewTokens(const Product& p) {
  for (int64_t row = 0; row < p.weight.rows; row += kLanes / kTokens)
    for (int64_t token = 0; token < p.tokens; token += kTokens) multiplyFewTokens<kType, kTokens>(p, row, token);
}

constexpr int64_t kTileRows = 2 * kLanes;
// A panel holds tiles of kTileRows rows as [lane][step][row], column = step * kLanes + lane. The extra step keeps the lanes'
// beginnings in different sets of the L1 cache.
constexpr int64_t kPanelSteps = kColumnBlock / kLanes + 1;
constexpr int64_t kPanelTile = kLanes * kPanelSteps * kTileRows;
static_assert(kPanelTile * (kPanelRows / kTileRows) <= kPanelFloats);
// Constant, and no power of two: tokens must not compete for the same sets of the L1 cache.
constexpr int64_t kTokenStride = kColumnBlock + kPanelPad;

// Where a tile of the output goes.
struct Output {
  const float* bias;  // of the first row, or null
  float* out;
  int64_t stride, rows;
  bool first;  // column block: starts from the bias
};

template <int kTokens>
void writeTile(const Vec sums[kTokens][2], const Output& o) {
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const int64_t rows = o.rows - v * kLanes;
      if (rows <= 0) continue;
      float* out = o.out + t * o.stride + v * kLanes;
      const float* start = !o.first ? out : o.bias != nullptr ? o.bias + v * kLanes : nullptr;
      storeUpTo(out, rows, add(start != nullptr ? loadUpTo(start, rows) : zero(), sums[t][v]));
    }
}

// One tile of a panel times x [kTokens, kTokenStride].
template <int kTokens>
void multiplyTile(const float* panel, int64_t cols, const float* x, const Output& o) {
  Vec sums[kTokens][2];
  const int64_t steps = (cols + kLanes - 1) / kLanes;
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    Vec acc[kTokens][2];
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) acc[t][0] = acc[t][1] = zero();
    const float* w = panel + lane * kPanelSteps * kTileRows;
    for (int64_t step = 0; step < steps; ++step) {
      const Vec w0 = load(w + step * kTileRows), w1 = load(w + step * kTileRows + kLanes);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const Vec xs = set1(x[t * kTokenStride + step * kLanes + lane]);
        acc[t][0] = fma(w0, xs, acc[t][0]);
        acc[t][1] = fma(w1, xs, acc[t][1]);
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) sums[t][v] = lane == 0 ? acc[t][v] : add(sums[t][v], acc[t][v]);
  }
  writeTile<kTokens>(sums, o);
}

// Calls tile.operator()<kTokens>() for tokens in 1..kMost known only at run time.
template <int kMost, typename Tile>
inline void withTokens(int64_t tokens, Tile&& tile) {
  if constexpr (kMost > 1) {
    if (tokens < kMost) return withTokens<kMost - 1>(tokens, tile);
  }
  tile.template operator()<kMost>();
}

// Puts kLanes columns of kLanes rows into a panel.
template <DataType kType, bool kWhole>
inline void packSquare(const std::byte* const rows[kLanes], int64_t offset, int64_t cols, float* out) {
  Vec v[kLanes];
#pragma GCC unroll 16
  for (int row = 0; row < kLanes; ++row) {
    const std::byte* p = rows[row] + offset;
    // The same columns of the next block, which come after the other rows of this one.
    __builtin_prefetch(p + kColumnBlock / kGroup * groupBytes<kType>(), 0, 2);
    v[row] = kWhole ? decode<kType>(p) : decodePartial<kType>(p, cols);
  }
  transpose(v);
#pragma GCC unroll 16
  for (int lane = 0; lane < kLanes; ++lane) store(out + lane * kPanelSteps * kTileRows, v[lane]);
}

// Columns [0, cols) of kLanes rows, whole squares or groups; lanes beyond the last column are as decodeTail leaves them.
template <DataType kType>
void packRows(const std::byte* const rows[kLanes], int64_t cols, float* out) {
  if constexpr (kType == DataType::kInt4) {
    for (int64_t col = 0; col < cols; col += kGroup)
      packInt4Group(rows, col / kGroup * kInt4GroupBytes, out + col / kLanes * kTileRows, kPanelSteps * kTileRows, kTileRows);
  } else {
    constexpr int64_t kBytes = groupBytes<kType>() / kGroup;
    int64_t col = 0;
    for (; col + kLanes <= cols; col += kLanes) packSquare<kType, true>(rows, col * kBytes, kLanes, out + col / kLanes * kTileRows);
    if (col < cols) packSquare<kType, false>(rows, col * kBytes, cols - col, out + col / kLanes * kTileRows);
  }
}

// One column block of up to kPanelRows rows. Rows beyond the last one repeat it.
void packPanel(const RowBlock& w, int64_t row, int64_t rows, int64_t col, int64_t cols, float* panel) {
  withType(w.dtype, [&]<DataType kType>() {
    for (int64_t r = 0; r < roundUp(rows, kTileRows); r += kLanes) {
      const std::byte* lanes[kLanes];
      for (int64_t lane = 0; lane < kLanes; ++lane)
        lanes[lane] = w.data + (row + smaller(r + lane, rows - 1)) * w.stride + col / kGroup * groupBytes<kType>();
      packRows<kType>(lanes, cols, panel + r / kTileRows * kPanelTile + r % kTileRows);
    }
  });
}

void copyTokens(const float* x, int64_t xStride, int64_t tokens, int64_t cols, float* out) {
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t col = 0; col < cols; col += kLanes)
      store(out + t * kTokenStride + col, loadUpTo(x + t * xStride + col, cols - col));
}

void multiplyPanel(const Product& p, int64_t row, int64_t rows, int64_t col) {
  const int64_t cols = smaller(kColumnBlock, p.weight.cols - col);
  packPanel(p.weight, row, rows, col, cols, p.panel);
  alignas(64) float x[kTileTokens * kTokenStride];
  for (int64_t token = 0; token < p.tokens; token += kTileTokens) {
    const int64_t tokens = smaller(kTileTokens, p.tokens - token);
    copyTokens(p.x + token * p.xStride + col, p.xStride, tokens, cols, x);
    withTokens<kTileTokens>(tokens, [&]<int kTokens>() {
      for (int64_t r = 0; r < rows; r += kTileRows) {
        const Output output{p.bias != nullptr ? p.bias + row + r : nullptr, p.out + token * p.outStride + row + r, p.outStride,
                            rows - r, col == 0};
        multiplyTile<kTokens>(p.panel + r / kTileRows * kPanelTile, cols, x, output);
      }
    });
  }
}

void multiplyManyTokens(const Product& p) {
  for (int64_t row = 0; row < p.weight.rows; row += kPanelRows)
    for (int64_t col = 0; col < p.weight.cols; col += kColumnBlock)
      multiplyPanel(p, row, smaller(kPanelRows, p.weight.rows - row), col);
}

void multiply(const Product& p) {
  // Up to so many tokens, converting the weights again for every 4 of them costs less than transposing them (measured).
  const int64_t mostFew = p.weight.dtype == DataType::kInt4 ? 4 : 8;
  if (p.tokens > mostFew) return multiplyManyTokens(p);
  withType(p.weight.dtype, [&]<DataType kType>() {
    if (p.tokens == 1) return multiplyFewTokens<kType, 1>(p);
    if (p.tokens == 2) return multiplyFewTokens<kType, 2>(p);
    multiplyFewTokens<kType, 4>(p);
  });
}

// ---- Storage <-> fp32 ------------------------------------------------------------------------------------------------

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
  decodeTail<kType>(row, cols - col, w);
  for (int i = 0; col + i * kLanes < cols; ++i) store(out + col + i * kLanes, w[i]);
}

void toFloat(DataType from, const std::byte* row, int64_t cols, float* out) {
  withType(from, [&]<DataType kType>() {
    const int64_t whole = cols / kGroup * kGroup;
    decodeRow<kType>(row, whole, out);
    if (whole == cols) return;
    Vec tail[kGroupVecs];
    decodeTail<kType>(row + whole / kGroup * groupBytes<kType>(), cols - whole, tail);
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

// ---- Functions of one value -------------------------------------------------------------------------------------------

// e^x = 2^n e^r, n whole, |r| <= ln(2) / 2: Taylor series to r^7, relative error below 1e-8 before rounding. x is clamped to where
// 2^n is a normal number; NaN stays NaN (it is the second operand).
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

// x Phi(x), Phi the normal distribution. For z = |x| / sqrt(2) and t = 1 / (1 + z / 2), erfc(z) = t e^(P(t) - z^2) with P
// interpolated at Chebyshev nodes of 2/15 <= t <= 1: relative error of erfc below 1e-7 before rounding.
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

// ---- Functions of one token -------------------------------------------------------------------------------------------

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
  return {name,     multiply, attend,   attentionScratchFloats, toFloat, fromFloat, fitInt4,
          layerNorm, rmsNorm,  addAll,   activate,               rope,    readMemory};
}

}  // namespace
}  // namespace flexplan::cpu::FLEXPLAN_ISA
