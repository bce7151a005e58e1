// Every kernel of every ISA that this machine has against a slow twin in double precision. Tolerances are bounds: u = 2^-24 is
// the rounding of one operation; a sum's error is at most its depth times u times the sum of magnitudes.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "core/half.h"
#include "core/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "quant/int4.h"
#include "test/check.h"

namespace flexplan::test {
namespace {

using cpu::Activation;
using Bytes = std::vector<std::byte>;
constexpr double kU = 0x1p-24;
constexpr std::array kTypes{DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16, DataType::kInt4};

size_t index(int64_t i) { return static_cast<size_t>(i); }

// Roundings that a product can go through: its own (where it is not fused), its chain (of at least 4 in a block; in pairs a unit
// counts twice, but there are 16 chains), the tree of chains, then the sum of blocks, then the bias.
double sumDepth(int64_t n) {
  const auto columns = static_cast<double>(n);
  return std::min(columns, cpu::kBlockUnits / 4.0) + 4 + columns / cpu::kBlockUnits + 2;
}

// What is multiplied: with pairs of bf16 both operands are rounded first.
double operand(DataType weight, bool exact, float value) {
  return cpu::kernels().tokenLayout(weight, 1, 1, exact).pairs ? bfloat16ToFloat(floatToBFloat16(value)) : value;
}

Bytes encode(DataType type, const std::vector<float>& values, int64_t cols) {
  const size_t stride = rowBytes(type, cols);
  Bytes rows(values.size() / index(cols) * stride);
  for (size_t r = 0; r * index(cols) < values.size(); ++r) {
    const float* row = values.data() + r * index(cols);
    std::byte* out = rows.data() + r * stride;
    if (type == DataType::kInt4) quantizeInt4(row, cols, out);
    for (int64_t c = 0; c < cols && type != DataType::kInt4; ++c) {
      const uint16_t half = type == DataType::kFloat16 ? floatToFloat16(row[c]) : floatToBFloat16(row[c]);
      if (type == DataType::kFloat32) std::memcpy(out + c * 4, row + c, 4);
      if (type != DataType::kFloat32) std::memcpy(out + c * 2, &half, 2);
    }
  }
  return rows;
}

std::vector<float> decode(DataType type, const std::byte* row, int64_t cols) {
  std::vector<float> values(index(cols));
  if (type == DataType::kInt4) dequantizeInt4(row, cols, values.data());
  for (int64_t c = 0; c < cols && type != DataType::kInt4; ++c) {
    uint16_t half;
    if (type == DataType::kFloat32) std::memcpy(&values[index(c)], row + c * 4, 4);
    if (type == DataType::kFloat32) continue;
    std::memcpy(&half, row + c * 2, 2);
    values[index(c)] = type == DataType::kFloat16 ? float16ToFloat(half) : bfloat16ToFloat(half);
  }
  return values;
}

bool sameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::string named(const char* op, DataType type, std::initializer_list<int64_t> sizes) {
  std::string text = std::string(cpu::isaName()) + " " + op + " " + dataTypeName(type);
  for (const int64_t size : sizes) text += " " + std::to_string(size);
  return text;
}

// ---- Matmul ----------------------------------------------------------------------------------------------------------

struct MatmulCase {
  DataType type;
  int64_t tokens, rows, cols;
  std::vector<float> x, bias;
  Bytes weight;
  bool exact = false;

  MatmulCase(Random& random, DataType dtype, int64_t numTokens, int64_t numRows, int64_t numCols)
      : type(dtype), tokens(numTokens), rows(numRows), cols(numCols), x(random.vector(numTokens * numCols)),
        bias(random.vector(numRows)), weight(encode(dtype, random.vector(numRows * numCols), numCols)) {}

  // splits: rows of the first two pieces; strides are padded by 3 to catch mixed-up ones.
  std::vector<float> run(ThreadPool& pool, std::array<int64_t, 2> splits = {0, 0}, int64_t firstToken = 0,
                         int64_t numTokens = -1) const {
    if (numTokens < 0) numTokens = tokens;
    const int64_t xStride = cols + 3, outStride = rows + 3;
    std::vector<float> padded(index(numTokens * xStride), 1e30f), out(index(numTokens * outStride), -7);
    for (int64_t t = 0; t < numTokens; ++t)
      std::copy_n(x.data() + (firstToken + t) * cols, cols, padded.data() + t * xStride);
    const auto stride = static_cast<int64_t>(rowBytes(type, cols));
    // A copy of its own for each piece, so that reading past one is seen by a sanitizer.
    const std::array<int64_t, 4> edges{0, splits[0], splits[0] + splits[1], rows};
    std::array<Bytes, 3> copies;
    cpu::Matmul op{{type, cols, {}, 3}, bias.data(), padded.data(), xStride, out.data(), outStride};
    for (size_t i = 0; i < 3; ++i) {
      copies[i].assign(weight.begin() + edges[i] * stride, weight.begin() + edges[i + 1] * stride);
      op.weight.pieces[i] = {copies[i].data(), edges[i + 1] - edges[i]};
    }
    op.exactTokens = exact;
    cpu::matmul(pool, {&op, 1}, numTokens);
    std::vector<float> dense;
    for (int64_t t = 0; t < numTokens; ++t)
      dense.insert(dense.end(), out.begin() + t * outStride, out.begin() + t * outStride + rows);
    return dense;
  }

  bool matchesTwin(const std::vector<float>& out) const {
    for (int64_t r = 0; r < rows; ++r) {
      const auto w = decode(type, weight.data() + index(r) * rowBytes(type, cols), cols);
      for (int64_t t = 0; t < tokens; ++t) {
        double sum = bias[index(r)], magnitude = std::abs(sum);
        for (int64_t c = 0; c < cols; ++c) {
          const double product = operand(type, exact, x[index(t * cols + c)]) * operand(type, exact, w[index(c)]);
          sum += product;
          magnitude += std::abs(product);
        }
        if (!(std::abs(out[index(t * rows + r)] - sum) <= sumDepth(cols) * kU * magnitude)) return false;
      }
    }
    return true;
  }
};

void testMatmulValues(Checks& checks, ThreadPool& pool) {
  Random random(1);
  const std::array<std::array<int64_t, 3>, 11> larger{{{1, 40, 1024}, {7, 40, 1025}, {3, 9, 2112}, {13, 70, 1984},
                                                       {64, 33, 320}, {100, 5, 96}, {1, 1, 4160}, {8, 64, 128},
                                                       {300, 36, 65}, {6, 130, 1030}, {50, 3, 2049}}};
  for (const DataType type : kTypes) {
    for (const int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 11, 13})
      for (const int64_t rows : {1, 2, 3, 4, 5, 7, 8, 33})
        for (const int64_t cols : {1, 3, 4, 7, 8, 15, 16, 17, 31, 63, 64, 65, 80, 127, 130}) {
          const MatmulCase c(random, type, tokens, rows, cols);
          checks.that(c.matchesTwin(c.run(pool)), named("matmul", type, {tokens, rows, cols}));
        }
    for (const auto [tokens, rows, cols] : larger)
      for (const bool exact : {false, true}) {
        MatmulCase c(random, type, tokens, rows, cols);
        c.exact = exact;
        checks.that(c.matchesTwin(c.run(pool)), named("matmul", type, {tokens, rows, cols, exact}));
      }
  }
}

void testMatmulBits(Checks& checks) {
  Random random(2);
  std::array<ThreadPool, 4> pools{ThreadPool(1), ThreadPool(2), ThreadPool(3), ThreadPool(4)};
  for (const DataType type : kTypes)
    for (const auto [tokens, rows, cols] : {std::array<int64_t, 3>{67, 45, 200}, {9, 130, 1100}, {5, 1000, 64}, {70, 7, 2085}}) {
      const MatmulCase c(random, type, tokens, rows, cols);
      const std::vector<float> all = c.run(pools[0]);
      for (ThreadPool& pool : pools) {
        checks.that(sameBits(all, c.run(pool)), named("matmul threads", type, {pool.numThreads(), tokens, rows, cols}));
        const int64_t first = random.below(rows + 1), second = random.below(rows - first + 1);
        checks.that(sameBits(all, c.run(pool, {first, second})), named("matmul pieces", type, {first, second, rows, cols}));
      }
      for (int64_t count = 1; count <= 8; ++count) {
        std::vector<float> parts;
        for (int64_t t = 0; t < tokens; t += count) {
          const auto part = c.run(pools[3], {0, 0}, t, std::min(count, tokens - t));
          parts.insert(parts.end(), part.begin(), part.end());
        }
        checks.that(sameBits(all, parts), named("matmul tokens at a time", type, {count, tokens, rows, cols}));
      }
    }
}

void testSeveralMatmuls(Checks& checks, ThreadPool& pool) {
  Random random(3);
  const int64_t tokens = 5, cols = 96;
  const std::vector<float> x = random.vector(tokens * cols);
  std::vector<MatmulCase> cases;
  std::vector<std::vector<float>> outputs;
  for (const int64_t rows : {12, 1, 7}) {
    cases.emplace_back(random, DataType::kBFloat16, tokens, rows, cols);
    cases.back().x = x;
    outputs.emplace_back(index(tokens * rows));
  }
  std::vector<cpu::Matmul> ops;
  for (size_t i = 0; i < cases.size(); ++i)
    ops.push_back({{cases[i].type, cols, {{cases[i].weight.data(), cases[i].rows}}, 1}, i == 1 ? nullptr : cases[i].bias.data(),
                   x.data(), cols, outputs[i].data(), cases[i].rows});
  cases[1].bias.assign(1, 0);
  cpu::matmul(pool, ops, tokens);
  for (size_t i = 0; i < cases.size(); ++i)
    checks.that(sameBits(outputs[i], cases[i].run(pool)), named("several matmuls", cases[i].type, {static_cast<int64_t>(i)}));
}

// ---- Storage ---------------------------------------------------------------------------------------------------------

void testHalf(Checks& checks) {
  // Round trip of all fp16 and bf16 numbers; then midpoints between neighbours go to the even one.
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const auto half = static_cast<uint16_t>(i);
    const bool nan16 = (i & 0x7fff) > 0x7c00, nanB = (i & 0x7fff) > 0x7f80;
    checks.that(nan16 ? std::isnan(float16ToFloat(half)) : floatToFloat16(float16ToFloat(half)) == half, "fp16 round trip");
    checks.that(nanB ? std::isnan(bfloat16ToFloat(half)) : floatToBFloat16(bfloat16ToFloat(half)) == half, "bf16 round trip");
    if ((i & 0x7fff) >= 0x7bff) continue;
    const float middle = (float16ToFloat(half) + float16ToFloat(static_cast<uint16_t>(half + 1))) / 2;
    checks.that(floatToFloat16(middle) == (half & 1 ? half + 1 : half), "fp16 midpoint");
  }
  checks.that(floatToFloat16(65519.996f) == 0x7bff && floatToFloat16(65520.0f) == 0x7c00, "fp16 overflow");
  checks.that(float16ToFloat(0x0001) == 0x1p-24f && float16ToFloat(0x3c00) == 1 && float16ToFloat(0xc000) == -2, "fp16 values");
}

void testConversions(Checks& checks, ThreadPool& pool) {
  Random random(4);
  std::vector<float> special = random.vector(4096, -70000, 70000);
  for (float& value : special) value = std::ldexp(value, static_cast<int>(random.below(60)) - 45);
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  for (const float value : {0.0f, -0.0f, inf, -inf, nan, 0x1p-25f, 0x1.8p-24f, 65504.0f, 65520.0f, -65519.0f}) special.push_back(value);
  for (const DataType type : kTypes)
    for (const int64_t cols : {1, 5, 16, 63, 64, 65, 100, 128, 193}) {
      const bool int4 = type == DataType::kInt4;
      const std::vector<float> values = int4 ? random.vector(cols * 3, -3, 5) : std::vector<float>(special.end() - cols, special.end());
      const auto rows = static_cast<int64_t>(values.size()) / cols;
      const Bytes expected = encode(type, values, cols);
      Bytes bytes(expected.size());
      cpu::fromFloat(pool, type, values.data(), rows, cols, bytes.data());
      checks.that(bytes == expected, named("fromFloat", type, {cols}));
      std::vector<float> back(values.size()), twin;
      cpu::toFloat(pool, type, bytes.data(), rows, cols, back.data());
      for (int64_t r = 0; r < rows; ++r) {
        const auto row = decode(type, expected.data() + index(r) * rowBytes(type, cols), cols);
        twin.insert(twin.end(), row.begin(), row.end());
      }
      checks.that(sameBits(back, twin), named("toFloat", type, {cols}));
    }
  const Bytes expected = encode(DataType::kFloat16, special, 1), expectedB = encode(DataType::kBFloat16, special, 1);
  Bytes bytes(expected.size());
  const auto count = static_cast<int64_t>(special.size());
  cpu::fromFloat(pool, DataType::kFloat16, special.data(), 1, count, bytes.data());
  checks.that(bytes == expected, named("fp16 special values", DataType::kFloat16, {}));
  cpu::fromFloat(pool, DataType::kBFloat16, special.data(), 1, count, bytes.data());
  checks.that(bytes == expectedB, named("bf16 special values", DataType::kBFloat16, {}));
}

// Largest |value - decoded| of one group, by the kernels in use, and the same in steps of the scale after the rounding of the
// decoded value is allowed for. Infinite if something is not finite or differs from the scalar quantizer.
struct GroupError {
  double steps, worst;
};
GroupError quantizationError(ThreadPool& pool, const std::vector<float>& values) {
  const auto cols = static_cast<int64_t>(values.size());
  Bytes row(rowBytes(DataType::kInt4, cols)), twin(row.size());
  cpu::fromFloat(pool, DataType::kInt4, values.data(), 1, cols, row.data());
  quantizeInt4(values.data(), cols, twin.data());
  std::vector<float> back(values.size());
  cpu::toFloat(pool, DataType::kInt4, row.data(), 1, cols, back.data());
  uint16_t scale;
  std::memcpy(&scale, row.data(), 2);
  GroupError error{0, 0};
  for (size_t i = 0; i < values.size(); ++i) {
    const double off = std::abs(static_cast<double>(values[i]) - back[i]);
    error.worst = std::max(error.worst, std::isfinite(back[i]) ? off : INFINITY);
    const double beyond = std::max(0.0, off - kU * std::abs(back[i]));
    if (beyond > 0) error.steps = std::max(error.steps, beyond / float16ToFloat(scale));
  }
  if (row != twin) error.steps = INFINITY;
  return error;
}

void testQuantizer(Checks& checks, ThreadPool& pool) {
  Random random(5);
  const auto name = [](const char* what) { return named(what, DataType::kInt4, {}); };
  // Half a step, plus the roundings of value - min and of the division.
  const double half = 0.5 + 32 * kU;
  for (int i = 0; i < 400; ++i) {
    const float middle = random.uniform(-100, 100) * (i % 3 == 0 ? 0.0f : 1.0f);
    const float width = std::ldexp(1.0f, static_cast<int>(random.below(34)) - 24);
    const auto values = random.vector(1 + random.below(64), middle - width, middle + width);
    checks.that(quantizationError(pool, values).steps <= half, name("error of at most half a step"));
  }
  for (const float constant : {0.0f, 1.0f, -2.5f, 65504.0f, -65504.0f})
    checks.that(quantizationError(pool, std::vector<float>(64, constant)).worst == 0, name("constant group, exact"));
  const float tiny = std::numeric_limits<float>::denorm_min();
  for (const float constant : {0.1f, -0.1f, 1000.3f, tiny, -tiny, 1e-9f, -3e-6f})
    checks.that(quantizationError(pool, std::vector<float>(64, constant)).steps <= half, name("constant group, rounded"));
  checks.that(quantizationError(pool, {0, tiny, 1e-7f}).worst <= 0x1p-25, name("tiny range"));
  const float most = std::numeric_limits<float>::max();
  for (const std::vector<float>& values : {std::vector<float>{-most, most}, {most, most}, {-most, -most}, {-1e6f, 3}, {0, 1e6f}, {-most, 0, 1}})
    checks.that(std::isfinite(quantizationError(pool, values).worst), name("beyond fp16 stays finite"));
  checks.that(quantizationError(pool, {-60000, 60000, 5, 0, 900000}).steps <= half, name("wide range"));
  // Padding does not widen the range: 65 values whose last is alone in its group.
  std::vector<float> values = random.vector(65, 10, 11);
  Bytes row(2 * kInt4GroupBytes);
  cpu::fromFloat(pool, DataType::kInt4, values.data(), 1, 65, row.data());
  uint16_t scale;
  std::memcpy(&scale, row.data() + kInt4GroupBytes, 2);
  checks.that(float16ToFloat(scale) * 15 <= 0x1p-7f * 1.01f, name("padding is no part of the range"));
}

// ---- Functions of one value and of one token ----------------------------------------------------------------------------

double twinOf(Activation f, double x) {
  switch (f) {
    case Activation::kRelu: return std::max(x, 0.0);
    case Activation::kGelu: return x * std::erfc(-x / std::sqrt(2.0)) / 2;
    case Activation::kGeluTanh: return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Activation::kSilu: break;
  }
  return x / (1 + std::exp(-x));
}

void testActivations(Checks& checks, ThreadPool& pool) {
  Random random(6);
  for (const Activation f : {Activation::kRelu, Activation::kGelu, Activation::kGeluTanh, Activation::kSilu}) {
    std::vector<float> x = random.vector(20001, -12, 12);
    for (const float value : {0.0f, 1e-20f, -1e-20f, 90.0f, -90.0f, 1e4f, -1e4f}) x.push_back(value);
    std::vector<float> y = x, gated = random.vector(static_cast<int64_t>(x.size())), one(1);
    const std::vector<float> other = gated;
    cpu::activate(pool, f, nullptr, static_cast<int64_t>(x.size()), y.data());
    cpu::activate(pool, f, x.data(), static_cast<int64_t>(x.size()), gated.data());
    bool close = true, closeGated = true, alone = true;
    for (size_t i = 0; i < x.size(); ++i) {
      const double expected = twinOf(f, x[i]);
      const double tolerance = f == Activation::kRelu ? 0 : 10 * kU * std::abs(x[i]);
      close &= std::abs(y[i] - expected) <= tolerance;
      closeGated &= std::abs(gated[i] - expected * other[i]) <= std::abs(other[i]) * (tolerance + 2 * kU * std::abs(expected));
      one[0] = x[i];
      if (i % 100 == 0) cpu::activate(pool, f, nullptr, 1, one.data());
      if (i % 100 == 0) alone &= sameBits(one, {y[i]});
    }
    const std::string name = std::string(cpu::isaName()) + " activation " + std::to_string(static_cast<int>(f));
    checks.that(close, name);
    checks.that(closeGated, name + " gated");
    checks.that(alone, name + " alone");
    one[0] = std::nanf("");
    cpu::activate(pool, f, nullptr, 1, one.data());
    checks.that(std::isnan(one[0]), name + " keeps NaN");
  }
}

void testAdd(Checks& checks, ThreadPool& pool) {
  Random random(7);
  for (const int64_t count : {1, 5, 16, 17, 33, 40000}) {
    const auto x = random.vector(count), before = random.vector(count);
    std::vector<float> y = before;
    cpu::add(pool, x.data(), count, y.data());
    bool exact = true;
    for (size_t i = 0; i < y.size(); ++i) exact &= y[i] == x[i] + before[i];
    checks.that(exact, named("add", DataType::kFloat32, {count}));
  }
}

struct Normal {
  bool rms;
  double mean = 0, inverse = 0, spread = 0;

  Normal(bool isRms, const float* x, int64_t size, double epsilon) : rms(isRms) {
    for (int64_t i = 0; i < size && !rms; ++i) mean += x[i] / static_cast<double>(size);
    double squares = 0;
    for (int64_t i = 0; i < size; ++i) squares += (x[i] - mean) * (x[i] - mean);
    inverse = 1 / std::sqrt(squares / static_cast<double>(size) + epsilon);
    for (int64_t i = 0; i < size; ++i) spread = std::max<double>(spread, std::abs(x[i]));
  }
};

void testNorms(Checks& checks, ThreadPool& pool) {
  Random random(8);
  for (const bool rms : {false, true})
    for (const int64_t size : {1, 3, 8, 17, 64, 100, 1000, 4096}) {
      const int64_t tokens = 5;
      const float epsilon = 1e-5f;
      const auto x = random.vector(tokens * size, -1, 3), weight = random.vector(size), bias = random.vector(size);
      std::vector<float> y = x;
      if (rms) cpu::rmsNorm(pool, y.data(), weight.data(), epsilon, tokens, size, y.data());
      if (!rms) cpu::layerNorm(pool, y.data(), weight.data(), bias.data(), epsilon, tokens, size, y.data());
      bool close = true;
      for (int64_t t = 0; t < tokens; ++t) {
        const Normal n(rms, x.data() + t * size, size, epsilon);
        for (int64_t i = 0; i < size; ++i) {
          const double shift = rms ? 0 : bias[index(i)];
          const double expected = (x[index(t * size + i)] - n.mean) * n.inverse * weight[index(i)] + shift;
          // The mean is off by depth u spread, which the division by the deviation enlarges.
          const double tolerance = (static_cast<double>(size) / 4 + 16) * kU * (n.spread * n.inverse * 2 + std::abs(shift));
          close &= std::abs(y[index(t * size + i)] - expected) <= tolerance;
        }
      }
      checks.that(close, named(rms ? "rmsNorm" : "layerNorm", DataType::kFloat32, {size}));
    }
}

void testRope(Checks& checks, ThreadPool& pool) {
  Random random(9);
  for (const int64_t headDim : {2, 6, 16, 64, 80, 128}) {
    const int64_t tokens = 7, heads = 3, stride = heads * headDim + 5;
    const auto x = random.vector(tokens * stride);
    const std::vector<int32_t> positions{0, 1, 2, 3, 100, 4095, 131071};
    std::vector<float> frequencies, y = x;
    for (int64_t d = 0; d < headDim / 2; ++d)
      frequencies.push_back(static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(d) / static_cast<double>(headDim))));
    cpu::rope(pool, positions.data(), frequencies.data(), tokens, heads, headDim, stride, y.data());
    bool close = true, untouched = true;
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < heads * headDim; ++i) {
        const int64_t d = i % headDim, half = headDim / 2;
        const double angle = static_cast<float>(positions[index(t)]) * frequencies[index(d % half)];
        const float* row = x.data() + t * stride + i - d;
        const double turned = d < half ? row[d] * std::cos(angle) - row[d + half] * std::sin(angle)
                                       : row[d] * std::cos(angle) + row[d - half] * std::sin(angle);
        close &= std::abs(y[index(t * stride + i)] - turned) <= 8 * kU;
      }
      for (int64_t i = heads * headDim; i < stride; ++i) untouched &= y[index(t * stride + i)] == x[index(t * stride + i)];
    }
    checks.that(close && untouched, named("rope", DataType::kFloat32, {headDim}));
  }
}

// ---- Attention -----------------------------------------------------------------------------------------------------------

struct AttentionCase {
  DataType type;
  cpu::AttentionShape shape;
  int64_t past, queries;
  std::vector<float> q, k, v;
  Bytes rows;
  bool exactScores = false;  // the engine's scores have no rounding errors

  AttentionCase(Random& random, ThreadPool& pool, DataType dtype, int64_t heads, int64_t kvHeads, int64_t dim, int64_t window,
                int64_t numPast, int64_t numQueries)
      : type(dtype), shape{heads, kvHeads, dim, heads * dim + 2, heads * dim + 1, window}, past(numPast), queries(numQueries),
        q(random.vector(numQueries * shape.qStride, -3, 3)), k(random.vector((numPast + numQueries) * kvHeads * dim, -2, 2)),
        v(random.vector((numPast + numQueries) * kvHeads * dim)), rows(index(past + queries) * cpu::kvRowBytes(dtype, kvHeads, dim)) {
    cpu::storeKvRows(pool, type, k.data(), v.data(), kvHeads * dim, past + queries, kvHeads, dim, rows.data());
  }

  // Queries [first, first + count), as if the later ones did not exist yet. pageRows == 0: the KV rows in one page.
  std::vector<float> run(ThreadPool& pool, int64_t first, int64_t count, int64_t pageRows = 0) const {
    std::vector<float> out(index(count * shape.outStride), -7);
    // Exactly the rows that may be read, and the pages in no order of addresses.
    const int64_t numRows = past + first + count;
    const int64_t rowsPerPage = pageRows > 0 ? pageRows : numRows;
    const int64_t numPages = (numRows + rowsPerPage - 1) / rowsPerPage;
    std::vector<Bytes> seen(index(numPages));
    std::vector<const std::byte*> pages(index(numPages));
    for (int64_t n = numPages - 1; n >= 0; --n) {
      const auto bytes = [&](int64_t row) { return rows.begin() + std::min(row, numRows) * static_cast<int64_t>(rowBytesOf()); };
      seen[index(n)].assign(bytes(n * rowsPerPage), bytes((n + 1) * rowsPerPage));
      pages[index(n)] = seen[index(n)].data();
    }
    const cpu::AttentionSequence sequence{{pages.data(), rowsPerPage, type}, past + first, count, q.data() + first * shape.qStride,
                                          out.data()};
    cpu::attention(pool, shape, {&sequence, 1});
    return out;
  }
  size_t rowBytesOf() const { return cpu::kvRowBytes(type, shape.numKvHeads, shape.headDim); }

  // K (which = 0) or V (1) of one head and position, as stored.
  std::vector<float> stored(int64_t position, int64_t kvHead, int64_t which) const {
    const size_t head = rowBytes(type, shape.headDim);
    return decode(type, rows.data() + index(position) * rowBytesOf() + index(which * shape.numKvHeads + kvHead) * head, shape.headDim);
  }

  bool matchesTwin(const std::vector<float>& out) const {
    for (int64_t t = 0; t < queries; ++t)
      for (int64_t h = 0; h < shape.numHeads; ++h)
        if (!headMatches(t, h, out.data() + t * shape.outStride + h * shape.headDim)) return false;
    return true;
  }

  // Of the positions that the query attends to, `begin` first.
  struct Scores {
    int64_t begin;
    std::vector<double> values;
    double error = 0;  // of the engine's
  };
  Scores scoresOf(int64_t t, int64_t h) const {
    const int64_t kvHead = h / (shape.numHeads / shape.numKvHeads), own = past + t;
    Scores scores{shape.slidingWindow > 0 ? std::max<int64_t>(0, own - shape.slidingWindow + 1) : 0, {}};
    const double root = std::sqrt(static_cast<double>(shape.headDim));
    for (int64_t p = scores.begin; p <= own; ++p) {
      const auto key = stored(p, kvHead, 0);
      double score = 0, magnitude = 0;
      for (int64_t d = 0; d < shape.headDim; ++d) {
        const double product = q[index(t * shape.qStride + h * shape.headDim + d)] * static_cast<double>(key[index(d)]);
        score += product;
        magnitude += std::abs(product);
      }
      scores.values.push_back(score / root);
      // The dot product's sum, the scaling of q, the subtraction of the maximum.
      scores.error = std::max(scores.error, (sumDepth(shape.headDim) + 4) * kU * magnitude / root);
    }
    return scores;
  }

  // Which of the scores take part, and which are so near to the last of them that rounding may decide otherwise.
  struct Kept {
    std::vector<bool> kept, doubtful;
  };
  Kept keptOf(const Scores& scores) const {
    const size_t size = scores.values.size();
    const auto count = std::min(size, static_cast<size_t>(std::ceil(shape.sparseValueFraction * static_cast<double>(size))));
    std::vector<size_t> order(size);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores.values[a] > scores.values[b]; });
    Kept result{std::vector<bool>(size), std::vector<bool>(size)};
    for (size_t i = 0; i < count; ++i) result.kept[order[i]] = true;
    if (count == size || exactScores) return result;
    const double last = scores.values[order[count - 1]], next = scores.values[order[count]];
    if (last - next > 2 * scores.error) return result;
    for (size_t i = 0; i < size; ++i) result.doubtful[i] = std::abs(scores.values[i] - last) <= 4 * scores.error;
    return result;
  }

  bool headMatches(int64_t t, int64_t h, const float* out) const {
    const Scores scores = scoresOf(t, h);
    const Kept positions = keptOf(scores);
    std::vector<double> result(index(shape.headDim)), size(index(shape.headDim)), doubt(index(shape.headDim));
    const double highest = *std::max_element(scores.values.begin(), scores.values.end());
    double sum = 0;
    for (size_t i = 0; i < scores.values.size(); ++i) {
      const auto value = stored(scores.begin + static_cast<int64_t>(i), h / (shape.numHeads / shape.numKvHeads), 1);
      const double weight = std::exp(scores.values[i] - highest);
      sum += weight;
      for (int64_t d = 0; d < shape.headDim; ++d) {
        if (positions.kept[i]) result[index(d)] += weight * value[index(d)];
        if (positions.kept[i]) size[index(d)] += weight * std::abs(value[index(d)]);
        if (positions.doubtful[i]) doubt[index(d)] += weight * std::abs(value[index(d)]);
      }
    }
    // Numerator and denominator: each weight is off by its score's error and the exponential's few u, each sum by its depth.
    const double relative = 2 * (2 * scores.error + 8 * kU + static_cast<double>(scores.values.size() + 7) * kU);
    for (int64_t d = 0; d < shape.headDim; ++d)
      if (!(std::abs(out[d] - result[index(d)] / sum) <= (relative * size[index(d)] + doubt[index(d)]) / sum)) return false;
    return true;
  }
};

// q and K such that fp32 scores are exact and often equal, in every dtype: q in eighths, K whole numbers whose 4-bit grid is
// that of the whole numbers. sqrt(dim) must be a power of two.
AttentionCase exactCase(Random& random, ThreadPool& pool, DataType dtype, int64_t heads, int64_t kvHeads, int64_t dim,
                        int64_t window, int64_t numPast, int64_t numQueries) {
  AttentionCase c(random, pool, dtype, heads, kvHeads, dim, window, numPast, numQueries);
  for (float& x : c.q) x = static_cast<float>(random.below(3) - 1) / 8;
  for (size_t i = 0; i < c.k.size(); ++i) {
    const size_t column = i % index(dim) % 64;
    c.k[i] = column < 2 ? (column == 0 ? -8.0f : 7.0f) : static_cast<float>(random.below(16) - 8);
  }
  cpu::storeKvRows(pool, dtype, c.k.data(), c.v.data(), kvHeads * dim, numPast + numQueries, kvHeads, dim, c.rows.data());
  c.exactScores = true;
  return c;
}

// The twin's values, and the same bits however the queries are launched and the rows lie.
void checkAttention(Checks& checks, ThreadPool& pool, const AttentionCase& c, const std::string& name) {
  const std::vector<float> out = c.run(pool, 0, c.queries);
  checks.that(c.matchesTwin(out), name);
  for (const int64_t count : {1, 2, 5, 64}) {
    if (count > c.queries) continue;
    std::vector<float> parts;
    for (int64_t t = 0; t < c.queries; t += count) {
      const auto part = c.run(pool, t, std::min(count, c.queries - t));
      parts.insert(parts.end(), part.begin(), part.end());
    }
    checks.that(sameBits(out, parts), name + " in parts of " + std::to_string(count));
  }
  for (const int64_t pages : {1, 3})
    checks.that(sameBits(out, c.run(pool, 0, c.queries, pages * cpu::kAttentionChunk)),
                name + " with chunks per page: " + std::to_string(pages));
}

void testAttention(Checks& checks, ThreadPool& pool) {
  Random random(10);
  struct Sizes {
    int64_t heads, kvHeads, dim, window, past, queries;
  };
  const std::vector<Sizes> all{{1, 1, 8, 0, 0, 1},     {2, 2, 64, 0, 0, 70},    {4, 2, 80, 0, 130, 1},  {8, 2, 128, 0, 63, 3},
                               {6, 1, 96, 0, 64, 1},   {10, 2, 20, 0, 7, 129},  {4, 4, 64, 5, 100, 40}, {4, 1, 72, 70, 150, 90},
                               {8, 8, 128, 0, 200, 1}, {3, 3, 33, 1, 2, 66},    {16, 2, 64, 0, 0, 65},  {2, 1, 256, 64, 64, 1},
                               {12, 4, 24, 100, 0, 7}, {5, 5, 100, 0, 500, 1},  {32, 4, 16, 17, 300, 2}};
  for (const DataType type : kTypes)
    for (const Sizes& s : all)
      for (const double fraction : {1.0, 0.1}) {
        AttentionCase c(random, pool, type, s.heads, s.kvHeads, s.dim, s.window, s.past, s.queries);
        c.shape.sparseValueFraction = fraction;
        const std::string kind = fraction < 1 ? "sparse attention" : "attention";
        checkAttention(checks, pool, c, named(kind.c_str(), type, {s.heads, s.kvHeads, s.dim, s.window, s.past, s.queries}));
      }
}

// Of equal scores the lower positions take part, and no V is read but that of positions that take part.
void testSparseAttention(Checks& checks, ThreadPool& pool) {
  Random random(13);
  for (const DataType type : kTypes)
    for (const double fraction : {1e-9, 0.07, 0.1, 0.5, 0.999}) {
      const std::string name = "exact scores, fraction " + std::to_string(fraction);
      for (const int64_t dim : {16, 64, 256})
        for (const int64_t window : {0, 90}) {
          AttentionCase c = exactCase(random, pool, type, 4, 2, dim, window, 150, 20);
          c.shape.sparseValueFraction = fraction;
          checkAttention(checks, pool, c, named(name.c_str(), type, {dim, window}));
        }
      AttentionCase c = exactCase(random, pool, type, 3, 3, 64, 0, 300, 1);
      c.shape.sparseValueFraction = fraction;
      const std::vector<float> before = c.run(pool, 0, 1);
      for (int64_t h = 0; h < 3; ++h) {
        const auto kept = c.keptOf(c.scoresOf(0, h)).kept;
        for (int64_t p = 0; p < 301; ++p) {
          const auto v = c.rows.begin() + static_cast<int64_t>(index(p) * c.rowBytesOf() + index(3 + h) * rowBytes(type, 64));
          if (!kept[index(p)]) std::fill(v, v + static_cast<int64_t>(rowBytes(type, 64)), std::byte{0xff});
        }
      }
      checks.that(sameBits(before, c.run(pool, 0, 1)), named((name + ", V of others spoiled").c_str(), type, {}));
    }
}

// Many sequences of different kinds in one launch: the same bits as each alone, for any number of threads.
void testAttentionBatch(Checks& checks) {
  Random random(11);
  ThreadPool one(1);
  for (const DataType type : kTypes)
    for (const auto& [decodeOnly, fraction] : {std::pair{true, 1.0}, {false, 1.0}, {true, 0.2}, {false, 0.2}}) {
      std::vector<AttentionCase> cases;
      for (int i = 0; i < 9; ++i) {
        cases.emplace_back(random, one, type, 8, 4, 64, 0, random.below(200), decodeOnly ? 1 : 1 + random.below(40));
        cases.back().shape.sparseValueFraction = fraction;
      }
      for (int threads = 1; threads <= 4; ++threads) {
        ThreadPool pool(threads);
        std::vector<std::vector<float>> outputs;
        std::vector<cpu::AttentionSequence> sequences;
        for (const AttentionCase& c : cases) outputs.emplace_back(index(c.queries * c.shape.outStride), -7.0f);
        std::vector<const std::byte*> pages;
        for (const AttentionCase& c : cases) pages.push_back(c.rows.data());
        for (size_t i = 0; i < cases.size(); ++i)
          sequences.push_back({{&pages[i], cases[i].past + cases[i].queries, type}, cases[i].past, cases[i].queries, cases[i].q.data(),
                               outputs[i].data()});
        cpu::attention(pool, cases[0].shape, sequences);
        bool same = true;
        for (size_t i = 0; i < cases.size(); ++i) same &= sameBits(outputs[i], cases[i].run(one, 0, cases[i].queries));
        checks.that(same, named(fraction < 1 ? "sparse attention batch" : "attention batch", type, {threads, decodeOnly}));
      }
    }
}

// What a query must not see cannot reach it, not even a NaN.
void testAttentionCausality(Checks& checks, ThreadPool& pool) {
  Random random(12);
  AttentionCase c(random, pool, DataType::kFloat16, 8, 2, 64, 0, 30, 20);
  const std::vector<float> before = c.run(pool, 0, 20);
  const size_t stride = c.rowBytesOf();
  std::fill(c.rows.end() - static_cast<int64_t>(stride), c.rows.end(), std::byte{0xff});
  const std::vector<float> after = c.run(pool, 0, 20);
  const auto last = static_cast<int64_t>(before.size()) - c.shape.outStride;
  checks.that(std::equal(before.begin(), before.begin() + last, after.begin()), named("causality", c.type, {}));
  checks.that(std::isnan(after[index(last)]), named("causality: the last query does see it", c.type, {}));
}

void testDispatch(Checks& checks) {
  checks.that(std::string(cpu::availableIsas()[0]) == "generic", "generic kernels are always there");
  checks.that(cpu::availableIsas().size() == cpu::availableKernels().size(), "one name per kernel set");
  for (size_t i = 0; i < cpu::availableKernels().size(); ++i)
    checks.that(std::string(cpu::availableIsas()[i]) == cpu::availableKernels()[i]->name, "names in the order of the sets");
}

void testKernelSet(Checks& checks, ThreadPool& pool) {
  testMatmulValues(checks, pool);
  testMatmulBits(checks);
  testSeveralMatmuls(checks, pool);
  testConversions(checks, pool);
  testQuantizer(checks, pool);
  testActivations(checks, pool);
  testAdd(checks, pool);
  testNorms(checks, pool);
  testRope(checks, pool);
  testAttention(checks, pool);
  testSparseAttention(checks, pool);
  testAttentionBatch(checks);
  testAttentionCausality(checks, pool);
}

int run() {
  Checks checks;
  testDispatch(checks);
  testHalf(checks);
  ThreadPool pool(3);
  for (const cpu::Kernels* set : cpu::availableKernels()) {
    cpu::useKernels(*set);
    const int before = checks.passed();
    testKernelSet(checks, pool);
    std::printf("%s: %d checks passed\n", set->name, checks.passed() - before);
  }
  return checks.finish();
}

}  // namespace
}  // namespace flexplan::test

int main() { return flexplan::test::run(); }
