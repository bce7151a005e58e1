// Matmul of every type and size class against a twin in double precision; bits must not depend on pieces, neighbours or
// threads.
#include <algorithm>
#include <array>
#include <cmath>

#include "test/cuda_kernels_test.h"

namespace flexplan::test {
namespace {

struct MatmulCase {
  DataType type;
  int64_t tokens, rows, cols;
  std::vector<float> x, bias;
  Bytes weight;

  MatmulCase(Random& random, DataType dtype, int64_t numTokens, int64_t numRows, int64_t numCols)
      : type(dtype), tokens(numTokens), rows(numRows), cols(numCols), x(random.vector(numTokens * numCols)),
        bias(random.vector(numRows)), weight(encode(dtype, random.vector(numRows * numCols), numCols)) {}
};

// The memory of one matmul; strides are padded by 3 to catch mixed-up ones.
struct DeviceMatmul {
  std::vector<DeviceArray<std::byte>> pieces;
  DeviceArray<float> x, bias, out;
  DeviceArray<std::byte> input;
  cuda::Matmul op{};

  // spoil: bytes that the pieces lie beside an aligned address. A copy of its own for each piece, so that reading past
  // one is seen.
  DeviceMatmul(const MatmulCase& c, std::array<int64_t, 2> splits, size_t spoil, int64_t firstToken, int64_t tokens)
      : x(padded(c, firstToken, tokens)), bias(c.bias), out(index(tokens * (c.rows + 3)), -7),
        input(index(cuda::matmulInputBytes(c.type, tokens, c.cols)), std::byte{0xff}) {
    op = {c.type, c.cols, {}, 3, bias.data(), x.data(), c.cols + 3, out.data(), c.rows + 3};
    const auto stride = static_cast<int64_t>(rowBytes(c.type, c.cols));
    const std::array<int64_t, 4> edges{0, splits[0], splits[0] + splits[1], c.rows};
    for (size_t i = 0; i < 3; ++i) {
      pieces.emplace_back(Bytes(c.weight.begin() + edges[i] * stride, c.weight.begin() + edges[i + 1] * stride), spoil);
      op.pieces[i] = {pieces.back().data(), edges[i + 1] - edges[i]};
    }
    if (c.type == DataType::kFloat32) return;
    cuda::matmulInput(nullptr, c.type, x.data(), c.cols + 3, tokens, c.cols, input.data());
    op.x = input.data();
    op.xStride = cuda::matmulInputStride(c.cols);
  }

  static std::vector<float> padded(const MatmulCase& c, int64_t firstToken, int64_t tokens) {
    std::vector<float> x(index(tokens * (c.cols + 3)), 1e30f);
    for (int64_t t = 0; t < tokens; ++t)
      std::copy_n(c.x.data() + (firstToken + t) * c.cols, c.cols, x.data() + t * (c.cols + 3));
    return x;
  }

  // [tokens, rows]
  std::vector<float> result(const MatmulCase& c) const {
    const std::vector<float> values = out.values();
    std::vector<float> dense;
    for (size_t at = 0; at < values.size(); at += index(c.rows + 3))
      dense.insert(dense.end(), values.begin() + static_cast<int64_t>(at),
                   values.begin() + static_cast<int64_t>(at) + c.rows);
    return dense;
  }
};

std::vector<float> run(const MatmulCase& c, std::array<int64_t, 2> splits = {0, 0}, size_t spoil = 0,
                       int64_t firstToken = 0, int64_t tokens = -1) {
  if (tokens < 0) tokens = c.tokens;
  const DeviceMatmul device(c, splits, spoil, firstToken, tokens);
  cuda::matmul(nullptr, &device.op, 1, tokens);
  return device.result(c);
}

// x as it is multiplied.
double rounded(DataType type, float x) {
  if (type == DataType::kFloat32) return x;
  return type == DataType::kBFloat16 ? bfloat16ToFloat(floatToBFloat16(x))
                                     : float16ToFloat(floatToFloat16(std::clamp(x, -65504.0f, 65504.0f)));
}

bool matchesTwin(const MatmulCase& c, const std::vector<float>& out) {
  for (int64_t r = 0; r < c.rows; ++r) {
    const auto w = decode(c.type, c.weight.data() + index(r) * rowBytes(c.type, c.cols), c.cols);
    for (int64_t t = 0; t < c.tokens; ++t) {
      double sum = c.bias[index(r)], magnitude = std::abs(sum), weightError = 0;
      for (int64_t i = 0; i < c.cols; ++i) {
        const double x = rounded(c.type, c.x[index(t * c.cols + i)]);
        sum += x * w[index(i)];
        magnitude += std::abs(x * w[index(i)]);
        if (c.type == DataType::kInt4) weightError += std::abs(x) * (0x1p-11 * std::abs(w[index(i)]) + 0x1p-24);
      }
      const double tolerance = static_cast<double>(c.cols + 10) * 2 * kU * magnitude + weightError;
      if (!(std::abs(out[index(t * c.rows + r)] - sum) <= tolerance)) return false;
    }
  }
  return true;
}

constexpr std::array<std::array<int64_t, 3>, 20> kSizes{
    {{1, 1, 64},     {1, 16, 128}, {1, 33, 1},  {3, 40, 1024}, {8, 17, 320},  {9, 16, 576},   {16, 70, 2112},
     {13, 5, 65},    {17, 64, 64}, {17, 3, 40}, {40, 65, 192}, {64, 64, 320}, {65, 128, 128}, {128, 129, 64},
     {130, 40, 256}, {70, 7, 100}, {2, 300, 8}, {300, 20, 64}, {5, 130, 130}, {1100, 9, 64}}};

void testValues(Checks& checks) {
  Random random(20);
  for (const DataType type : kTypes)
    for (const auto& [tokens, rows, cols] : kSizes) {
      const MatmulCase c(random, type, tokens, rows, cols);
      const std::string name = named("matmul", type, {tokens, rows, cols});
      checks.that(matchesTwin(c, inEveryOrder(checks, name, [&] { return run(c); })), name);
    }
}

void testBits(Checks& checks) {
  Random random(21);
  for (const DataType type : kTypes)
    for (const auto& [tokens, rows, cols] : {std::array<int64_t, 3>{12, 45, 256}, {63, 75, 128}, {150, 140, 192}}) {
      const MatmulCase c(random, type, tokens, rows, cols);
      const std::vector<float> all = run(c);
      const int64_t first = random.below(rows + 1), second = random.below(rows - first + 1);
      checks.that(sameBits(all, run(c, {first, second})), named("matmul pieces", type, {first, second, rows, cols}));
      // Parts that take the same kernel as the whole.
      const int64_t part = tokens > cuda::kSomeTokens ? tokens - 20 : tokens > cuda::kFewTokens ? 45 : 5;
      const std::vector<float> some = run(c, {0, 0}, 0, tokens - part, part);
      checks.that(sameBits(some, {all.end() - static_cast<int64_t>(some.size()), all.end()}),
                  named("matmul tokens", type, {part, tokens}));
      // Off by 4 bytes: 4-bit rows lie like that, others take the kernel for odd sizes.
      const std::vector<float> spoilt = run(c, {first, second}, 4);
      checks.that(type == DataType::kInt4 ? sameBits(all, spoilt) : matchesTwin(c, spoilt),
                  named("matmul unaligned", type, {tokens, rows, cols}));
    }
}

void testSeveral(Checks& checks) {
  Random random(22);
  for (const DataType type : kTypes)
    for (const int64_t tokens : {5, 30, 140}) {
      std::vector<MatmulCase> cases;
      std::vector<DeviceMatmul> devices;
      for (const int64_t rows : {70, 1, 130}) cases.emplace_back(random, type, tokens, rows, 128);
      for (const MatmulCase& c : cases) devices.emplace_back(c, std::array<int64_t, 2>{0, 0}, 0, 0, tokens);
      devices[1].op.bias = nullptr;
      const cuda::Matmul ops[] = {devices[0].op, devices[1].op, devices[2].op};
      cuda::matmul(nullptr, ops, 3, tokens);
      cases[1].bias.assign(1, 0);
      for (size_t i = 0; i < cases.size(); ++i)
        checks.that(sameBits(devices[i].result(cases[i]), run(cases[i])),
                    named("several matmuls", type, {tokens, static_cast<int64_t>(i)}));
    }
}

// Experts with the given numbers of tokens, their rows one after the other in one x and one out.
void testExpertsWith(Checks& checks, Random& random, DataType type, const std::vector<int64_t>& counts, int64_t rows,
                     int64_t cols) {
  std::vector<MatmulCase> cases;
  std::vector<int32_t> ends;
  int64_t tokens = 0;
  for (const int64_t count : counts) {
    cases.emplace_back(random, type, count, rows, cols);
    ends.push_back(static_cast<int32_t>(tokens += count));
  }
  MatmulCase together(random, type, tokens, rows, cols);
  together.x.clear();
  for (const MatmulCase& c : cases) together.x.insert(together.x.end(), c.x.begin(), c.x.end());
  const DeviceMatmul shared(together, {0, 0}, 0, 0, tokens);
  std::vector<DeviceMatmul> weights;
  std::vector<cuda::Matmul> ops;
  for (const MatmulCase& c : cases) {
    const int64_t first = random.below(rows + 1);
    weights.emplace_back(c, std::array<int64_t, 2>{first, random.below(rows - first + 1)}, 0, 0, c.tokens);
    ops.push_back(shared.op);
    std::copy_n(weights.back().op.pieces, 3, ops.back().pieces);
    ops.back().bias = weights.back().op.bias;
  }
  std::string name = named("matmulByExpert", type, {rows, cols});
  for (const int64_t count : counts) name.append("/").append(std::to_string(count));
  const auto all = inEveryOrder(checks, name, [&] {
    cuda::matmulByExpert(nullptr, ops.data(), DeviceArray<cuda::Matmul>(ops).data(), static_cast<int>(ops.size()),
                         DeviceArray<int32_t>(ends).data(), tokens);
    return shared.result(together);
  });
  int64_t begin = 0;
  for (const MatmulCase& c : cases) {
    checks.that(matchesTwin(c, {all.begin() + begin * rows, all.begin() + (begin + c.tokens) * rows}), name);
    begin += c.tokens;
  }
}

void testExpertMatmul(Checks& checks) {
  Random random(23);
  for (const DataType type : kTypes)
    for (const int64_t cols : {128, 72}) {
      testExpertsWith(checks, random, type, {0, 1, 0, 3}, 33, cols);              // the kernels for few tokens
      testExpertsWith(checks, random, type, {40, 0, 9, 1, 0, 17, 0, 0}, 20, cols);  // more than one tile of an expert
      testExpertsWith(checks, random, type, {90, 30, 0, 64}, 70, cols);           // some tokens
      testExpertsWith(checks, random, type, {150, 129}, 130, cols);               // many
      testExpertsWith(checks, random, type, {5}, 16, cols);
    }
}

void testInput(Checks& checks) {
  const float inf = INFINITY;
  const std::vector<float> x{1, -2, 1e6f, -1e6f, inf, -inf, 65519, 1e-9f};
  const DeviceArray<float> device(x);
  DeviceArray<std::byte> out(index(cuda::matmulInputBytes(DataType::kInt4, 1, 8)), std::byte{0xff});
  cuda::matmulInput(nullptr, DataType::kInt4, device.data(), 8, 1, 8, out.data());
  std::vector<float> expected{1, -2, 65504, -65504, 65504, -65504, 65504, 0};
  expected.resize(index(cuda::matmulInputStride(8)), 0);
  checks.that(decodeRows(DataType::kFloat16, out.values(), cuda::matmulInputStride(8)) == expected,
              "matmulInput saturates and pads");
}

}  // namespace

void testMatmul(Checks& checks) {
  testInput(checks);
  testValues(checks);
  testBits(checks);
  testSeveral(checks);
  testExpertMatmul(checks);
}

}  // namespace flexplan::test
