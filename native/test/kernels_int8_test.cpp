// 4-bit weights with tokens that are unlike others: zero, tiny, huge, infinite, not numbers.
#include <cmath>
#include <limits>

#include "test/int8_twin.h"
#include "test/kernels_test.h"

namespace flexplan::test {
namespace {

constexpr int64_t kRows = 37;

struct TokenCase {
  int64_t tokens, cols;
  std::vector<float> x;
  Bytes weight;

  TokenCase(Random& random, int64_t numTokens, int64_t numCols)
      : tokens(numTokens), cols(numCols), x(random.vector(numTokens * numCols)),
        weight(index(kRows) * rowBytes(DataType::kInt4, numCols)) {
    const auto values = random.vector(kRows * cols, -0.5f, 1);
    for (int64_t r = 0; r < kRows; ++r) quantizeInt4(values.data() + r * cols, cols, row(r));
  }

  std::byte* row(int64_t r) { return weight.data() + index(r) * rowBytes(DataType::kInt4, cols); }

  std::vector<float> run(ThreadPool& pool) const {
    std::vector<float> out(index(tokens * kRows));
    const cpu::Matmul op{
        {DataType::kInt4, cols, {{weight.data(), kRows}}, 1}, nullptr, x.data(), cols, out.data(), kRows};
    cpu::matmul(pool, {&op, 1}, tokens);
    return out;
  }
};

// Sums of groups far apart in size.
void testMagnitudes(Checks& checks, ThreadPool& pool) {
  Random random(21);
  constexpr std::array<float, 5> kMagnitudes{0, 1e-44f, 1e-33f, 1e4f, 1e36f};
  for (const int64_t cols : {1, 63, 64, 65, 200, 1500}) {
    TokenCase c(random, 23, cols);
    // Groups of one token differ, too.
    for (int64_t i = 0; i < c.tokens * cols; ++i) c.x[index(i)] *= kMagnitudes[index((i / cols + i % cols / 64) % 5)];
    const std::vector<float> out = c.run(pool);
    bool close = true, rounded = true;
    for (int64_t t = 0; t < c.tokens; ++t)
      for (int64_t r = 0; r < kRows; ++r) {
        const Int8Product twin = int8Product(c.row(r), c.x.data() + t * cols, cols);
        const double value = out[index(t * kRows + r)];
        const double arithmetic = int8Depth(cols) * kU * twin.magnitude +
                                  std::numeric_limits<float>::denorm_min() * static_cast<double>(cols);
        close &= std::abs(value - twin.value) <= arithmetic;
        rounded &= std::abs(value - twin.exact) <= arithmetic + twin.mostRounding * (1 + 256 * kU);
      }
    checks.that(close, named("int8 magnitudes", DataType::kInt4, {cols}));
    checks.that(rounded, named("int8 rounding", DataType::kInt4, {cols}));
  }
}

// What is no number stays in its token.
void testNoNumbers(Checks& checks, ThreadPool& pool) {
  Random random(22);
  for (const float value : {std::nanf(""), INFINITY, -INFINITY})
    for (const int64_t cols : {1, 64, 130, 1100})
      for (const int64_t tokens : {1, 7, 30}) {
        TokenCase c(random, tokens, cols);
        const std::vector<float> before = c.run(pool);
        const int64_t spoilt = random.below(tokens);
        c.x[index(spoilt * cols + random.below(cols))] = value;
        const std::vector<float> out = c.run(pool);
        bool right = true;
        for (int64_t i = 0; i < tokens * kRows; ++i)
          right &= i / kRows == spoilt ? !std::isfinite(out[index(i)]) : sameBits({out[index(i)]}, {before[index(i)]});
        checks.that(right, named("int8 no number", DataType::kInt4, {tokens, cols}));
      }
}

}  // namespace

void testInt8Kernels(Checks& checks, ThreadPool& pool) {
  testMagnitudes(checks, pool);
  testNoNumbers(checks, pool);
}

}  // namespace flexplan::test
