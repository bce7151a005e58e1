// Every kernel of every ISA that this machine has against a slow twin in double precision.
//
//   kernels_test [part]: all parts, or one of kParts.
#include <cmath>
#include <limits>

#include "test/int8_twin.h"
#include "test/kernels_test.h"

namespace flexplan::test {
namespace {

using cpu::Activation;
// What is multiplied: with pairs of bf16 both operands are rounded first.
double operand(DataType weight, bool exact, float value) {
  return cpu::kernels().tokenLayout(weight, 1, 1, exact).pairs ? bfloat16ToFloat(floatToBFloat16(value)) : value;
}

// ---- Matmul ---------------------------------------------------------------------------------------------------------

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

  bool matchesInt8Twin(const std::vector<float>& out) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t t = 0; t < tokens; ++t) {
        const Int8Product twin =
            int8Product(weight.data() + index(r) * rowBytes(type, cols), x.data() + t * cols, cols);
        const double off = out[index(t * rows + r)] - (twin.value + bias[index(r)]);
        if (!(std::abs(off) <= int8Depth(cols) * kU * (twin.magnitude + std::abs(bias[index(r)])))) return false;
      }
    return true;
  }

  bool matchesTwin(const std::vector<float>& out) const {
    if (type == DataType::kInt4) return matchesInt8Twin(out);
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
    for (const auto [tokens, rows, cols] :
         {std::array<int64_t, 3>{67, 45, 200}, {9, 130, 1100}, {5, 1000, 64}, {70, 7, 2085}, {31, 64, 1040}}) {
      const MatmulCase c(random, type, tokens, rows, cols);
      const std::vector<float> all = c.run(pools[0]);
      for (ThreadPool& pool : pools) {
        checks.that(sameBits(all, c.run(pool)), named("matmul threads", type, {pool.numThreads(), tokens, rows, cols}));
        const int64_t first = random.below(rows + 1), second = random.below(rows - first + 1);
        checks.that(sameBits(all, c.run(pool, {first, second})),
                    named("matmul pieces", type, {first, second, rows, cols}));
      }
      for (const int64_t count : {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15, 27, 40}) {
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
    ops.push_back({{cases[i].type, cols, {{cases[i].weight.data(), cases[i].rows}}, 1},
                   i == 1 ? nullptr : cases[i].bias.data(),
                   x.data(),
                   cols,
                   outputs[i].data(),
                   cases[i].rows});
  cases[1].bias.assign(1, 0);
  cpu::matmul(pool, ops, tokens);
  for (size_t i = 0; i < cases.size(); ++i)
    checks.that(sameBits(outputs[i], cases[i].run(pool)),
                named("several matmuls", cases[i].type, {static_cast<int64_t>(i)}));
}

// ---- Storage --------------------------------------------------------------------------------------------------------

void testHalf(Checks& checks) {
  // Round trip of all fp16 and bf16 numbers; then midpoints between neighbours go to the even one.
  for (uint32_t i = 0; i < 0x10000; ++i) {
    const auto half = static_cast<uint16_t>(i);
    const bool nan16 = (i & 0x7fff) > 0x7c00, nanB = (i & 0x7fff) > 0x7f80;
    checks.that(nan16 ? std::isnan(float16ToFloat(half)) : floatToFloat16(float16ToFloat(half)) == half,
                "fp16 round trip");
    checks.that(nanB ? std::isnan(bfloat16ToFloat(half)) : floatToBFloat16(bfloat16ToFloat(half)) == half,
                "bf16 round trip");
    if ((i & 0x7fff) >= 0x7bff) continue;
    const float middle = (float16ToFloat(half) + float16ToFloat(static_cast<uint16_t>(half + 1))) / 2;
    checks.that(floatToFloat16(middle) == (half & 1 ? half + 1 : half), "fp16 midpoint");
  }
  checks.that(floatToFloat16(65519.996f) == 0x7bff && floatToFloat16(65520.0f) == 0x7c00, "fp16 overflow");
  checks.that(float16ToFloat(0x0001) == 0x1p-24f && float16ToFloat(0x3c00) == 1 && float16ToFloat(0xc000) == -2,
              "fp16 values");
}

void testConversions(Checks& checks, ThreadPool& pool) {
  Random random(4);
  std::vector<float> special = random.vector(4096, -70000, 70000);
  for (float& value : special) value = std::ldexp(value, static_cast<int>(random.below(60)) - 45);
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  for (const float value : {0.0f, -0.0f, inf, -inf, nan, 0x1p-25f, 0x1.8p-24f, 65504.0f, 65520.0f, -65519.0f})
    special.push_back(value);
  for (const DataType type : kTypes)
    for (const int64_t cols : {1, 5, 16, 63, 64, 65, 100, 128, 193}) {
      const bool int4 = type == DataType::kInt4;
      const std::vector<float> values =
          int4 ? random.vector(cols * 3, -3, 5) : std::vector<float>(special.end() - cols, special.end());
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

// Largest |value - decoded| of one group, by the kernels in use, and the same in steps of the scale after the rounding
// of the decoded value is allowed for. Infinite if something is not finite or differs from the scalar quantizer.
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
    checks.that(quantizationError(pool, std::vector<float>(64, constant)).steps <= half,
                name("constant group, rounded"));
  checks.that(quantizationError(pool, {0, tiny, 1e-7f}).worst <= 0x1p-25, name("tiny range"));
  const float most = std::numeric_limits<float>::max();
  for (const std::vector<float>& values :
       {std::vector<float>{-most, most}, {most, most}, {-most, -most}, {-1e6f, 3}, {0, 1e6f}, {-most, 0, 1}})
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

// ---- Functions of one value and of one token ------------------------------------------------------------------------

double twinOf(Activation f, double x) {
  switch (f) {
    case Activation::kRelu: return std::max(x, 0.0);
    case Activation::kGelu: return x * std::erfc(-x / std::sqrt(2.0)) / 2;
    case Activation::kGeluTanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
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
      closeGated &=
          std::abs(gated[i] - expected * other[i]) <= std::abs(other[i]) * (tolerance + 2 * kU * std::abs(expected));
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
          const double tolerance =
              (static_cast<double>(size) / 4 + 16) * kU * (n.spread * n.inverse * 2 + std::abs(shift));
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
      frequencies.push_back(
          static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(d) / static_cast<double>(headDim))));
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
      for (int64_t i = heads * headDim; i < stride; ++i)
        untouched &= y[index(t * stride + i)] == x[index(t * stride + i)];
    }
    checks.that(close && untouched, named("rope", DataType::kFloat32, {headDim}));
  }
}

void testDispatch(Checks& checks) {
  checks.that(std::string(cpu::availableIsas()[0]) == "generic", "generic kernels are always there");
  checks.that(cpu::availableIsas().size() == cpu::availableKernels().size(), "one name per kernel set");
  for (size_t i = 0; i < cpu::availableKernels().size(); ++i)
    checks.that(std::string(cpu::availableIsas()[i]) == cpu::availableKernels()[i]->name,
                "names in the order of the sets");
}

void testElements(Checks& checks, ThreadPool& pool) {
  testConversions(checks, pool);
  testQuantizer(checks, pool);
  testActivations(checks, pool);
  testAdd(checks, pool);
  testNorms(checks, pool);
  testRope(checks, pool);
  testInt8Kernels(checks, pool);
}

void testMatmulLaunches(Checks& checks, ThreadPool& pool) {
  testMatmulBits(checks);
  testSeveralMatmuls(checks, pool);
}

// Run beside each other where a build is slow (kernels.cmake).
struct Part {
  const char* name;
  void (*test)(Checks&, ThreadPool&);
};
constexpr std::array kParts{Part{"elements", testElements}, Part{"matmul", testMatmulValues},
                            Part{"matmul_launches", testMatmulLaunches}, Part{"attention", testAttentionKernels},
                            Part{"sparse_attention", testSparseAttentionKernels}};

int run(const std::string& wanted) {
  Checks checks;
  if (wanted.empty() || wanted == kParts[0].name) {
    testDispatch(checks);
    testHalf(checks);
  }
  ThreadPool pool(3);
  for (const cpu::Kernels* set : cpu::availableKernels()) {
    cpu::useKernels(*set);
    checks.setContext(set->name);
    const int before = checks.passed();
    for (const Part& part : kParts)
      if (wanted.empty() || wanted == part.name) part.test(checks, pool);
    std::printf("%s: %d checks passed\n", set->name, checks.passed() - before);
  }
  return checks.finish();
}

}  // namespace
}  // namespace flexplan::test

int main(int count, char** arguments) { return flexplan::test::run(count > 1 ? arguments[1] : ""); }
