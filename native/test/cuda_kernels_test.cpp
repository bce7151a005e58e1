// Every kernel of native/cuda against a slow twin in double precision, or bit for bit against the scalar code of core/
// and quant/. Without a GPU the same kernels run under emulation (cuda_emulation/), their threads in several orders
// that must give the same bits. Tolerances are bounds: u = 2^-24 is the rounding of one fp32 operation, h = 2^-11 that
// of fp16, 2^-8 of bf16. Tensor cores may cut off where the CPU rounds, so their sums are allowed 2 u an addition.
#include "test/cuda_kernels_test.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace flexplan::test {
namespace {

using cpu::Activation;

bool sameNumbers(const std::vector<float>& a, const std::vector<float>& b) {
  bool same = a.size() == b.size();
  for (size_t i = 0; same && i < a.size(); ++i)
    same = std::memcmp(&a[i], &b[i], sizeof(float)) == 0 || (std::isnan(a[i]) && std::isnan(b[i]));
  return same;
}

// ---- Storage --------------------------------------------------------------------------------------------------------

std::vector<float> specialValues(Random& random) {
  std::vector<float> values = random.vector(2048, -70000, 70000);
  for (float& value : values) value = std::ldexp(value, static_cast<int>(random.below(60)) - 45);
  const float inf = std::numeric_limits<float>::infinity();
  for (const float value : {0.0f, -0.0f, inf, -inf, 0x1p-25f, 0x1.8p-24f, 65504.0f, 65520.0f, -65519.0f})
    values.push_back(value);
  return values;
}

void testConversions(Checks& checks) {
  Random random(1);
  const std::vector<float> special = specialValues(random);
  for (const DataType type : kTypes)
    for (const int64_t cols : {1, 5, 16, 63, 64, 65, 100, 128, 193})
      for (const size_t offset : {0, 1}) {
        const bool int4 = type == DataType::kInt4;
        const auto all = int4 ? random.vector(cols * 9, -3, 5) : special;
        const int64_t rows = static_cast<int64_t>(all.size()) / cols;
        const std::vector<float> values(all.begin(), all.begin() + rows * cols);
        const Bytes expected = encode(type, values, cols);
        DeviceArray<float> source(values, offset);
        DeviceArray<std::byte> bytes(expected.size(), std::byte{1}, int4 ? 4 * offset : 0);
        cuda::fromFloat(nullptr, type, source.data(), rows, cols, bytes.data());
        checks.that(bytes.values() == expected, named("fromFloat", type, {cols, static_cast<int64_t>(offset)}));
        DeviceArray<float> back(values.size(), -7, offset);
        cuda::toFloat(nullptr, type, bytes.data(), rows, cols, back.data());
        checks.that(sameNumbers(back.values(), decodeRows(type, expected, cols)), named("toFloat", type, {cols}));
        std::vector<int32_t> places;
        for (int i = 0; i < 5; ++i) places.push_back(static_cast<int32_t>(random.below(rows)));
        DeviceArray<float> gathered(5 * index(cols), -7);
        cuda::gatherRows(nullptr, type, bytes.data(), DeviceArray<int32_t>(places).data(), 5, cols, gathered.data());
        std::vector<float> twin;
        for (const int32_t row : places) {
          const auto one = decode(type, expected.data() + index(row) * rowBytes(type, cols), cols);
          twin.insert(twin.end(), one.begin(), one.end());
        }
        checks.that(sameNumbers(gathered.values(), twin), named("gatherRows", type, {cols}));
      }
}

// The cases of the CPU's quantizer where the grid meets the edges of fp16.
void testQuantizer(Checks& checks) {
  Random random(2);
  std::vector<std::vector<float>> groups;
  for (int i = 0; i < 200; ++i) {
    const float middle = random.uniform(-100, 100) * (i % 3 == 0 ? 0.0f : 1.0f);
    const float width = std::ldexp(1.0f, static_cast<int>(random.below(34)) - 24);
    groups.push_back(random.vector(1 + random.below(64), middle - width, middle + width));
  }
  const float most = std::numeric_limits<float>::max(), tiny = std::numeric_limits<float>::denorm_min();
  for (const float constant : {0.0f, -0.0f, 1.0f, -2.5f, 65504.0f, -65504.0f, 0.1f, 1000.3f, tiny, -tiny, -3e-6f, most})
    groups.emplace_back(64, constant);
  for (const std::vector<float>& values :
       {std::vector<float>{-most, most}, {-1e6f, 3}, {0, 1e6f}, {-most, 0, 1}, {0, tiny, 1e-7f}})
    groups.push_back(values);
  for (const std::vector<float>& values : groups) {
    const auto cols = static_cast<int64_t>(values.size());
    DeviceArray<std::byte> group(kInt4GroupBytes, std::byte{1});
    cuda::fromFloat(nullptr, DataType::kInt4, DeviceArray<float>(values).data(), 1, cols, group.data());
    checks.that(group.values() == encode(DataType::kInt4, values, cols), named("quantizer", DataType::kInt4, {cols}));
  }
}

void testStoreKvRows(Checks& checks) {
  Random random(3);
  for (const DataType type : kTypes)
    for (const auto& [heads, dim] : {std::pair<int64_t, int64_t>{1, 8}, {2, 80}, {3, 33}, {4, 64}, {2, 128}}) {
      const int64_t tokens = 5, stride = heads * dim + 3;
      const auto k = random.vector(tokens * stride), v = random.vector(tokens * stride);
      const size_t bytes = 2 * index(heads) * rowBytes(type, dim);
      Bytes expected;
      for (int64_t t = 0; t < tokens; ++t)
        for (const std::vector<float>* values : {&k, &v}) {
          const auto row = values->begin() + t * stride;
          const Bytes encoded = encode(type, {row, row + heads * dim}, dim);
          expected.insert(expected.end(), encoded.begin(), encoded.end());
        }
      const DeviceArray<float> deviceK(k), deviceV(v);
      const DeviceArray<std::byte> together(expected.size(), std::byte{1}), apart(expected.size(), std::byte{1});
      cuda::storeKvRows(nullptr, type, deviceK.data(), deviceV.data(), stride, tokens, heads, dim,
                        {together.data(), nullptr});
      checks.that(together.values() == expected, named("storeKvRows", type, {heads, dim}));
      // Row t at place 4 - t.
      std::vector<std::byte*> places;
      for (int64_t t = 0; t < tokens; ++t) places.push_back(apart.data() + index(tokens - 1 - t) * bytes);
      cuda::storeKvRows(nullptr, type, deviceK.data(), deviceV.data(), stride, tokens, heads, dim,
                        {nullptr, DeviceArray<std::byte*>(places).data()});
      Bytes reversed;
      for (int64_t t = tokens - 1; t >= 0; --t)
        reversed.insert(reversed.end(), expected.begin() + t * static_cast<int64_t>(bytes),
                        expected.begin() + (t + 1) * static_cast<int64_t>(bytes));
      checks.that(apart.values() == reversed, named("storeKvRows to places", type, {heads, dim}));
    }
}

void testCopies(Checks& checks) {
  Random random(4);
  Bytes source(100000);
  for (std::byte& byte : source) byte = static_cast<std::byte>(random.below(256));
  const DeviceArray<std::byte> from(source), to(source.size(), std::byte{0});
  Bytes expected(source.size());
  std::vector<cuda::CopySpan> spans;
  int64_t at = 0, most = 0;
  for (const int64_t bytes :
       {int64_t{64}, int64_t{1}, int64_t{0}, int64_t{40000}, int64_t{15}, int64_t{16384}, int64_t{333}}) {
    const int64_t source0 = bytes % 2 == 0 ? 1024 : 1025;
    spans.push_back({to.data() + at, from.data() + source0, bytes});
    std::copy_n(source.begin() + source0, bytes, expected.begin() + at);
    at += (bytes + 15) / 16 * 16;
    most = std::max(most, bytes);
  }
  cuda::copySpans(nullptr, DeviceArray<cuda::CopySpan>(spans).data(), static_cast<int64_t>(spans.size()), most);
  checks.that(to.values() == expected, "copySpans");
}

// ---- Element by element, token by token -----------------------------------------------------------------------------

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

void testActivations(Checks& checks) {
  Random random(5);
  for (const Activation f : {Activation::kRelu, Activation::kGelu, Activation::kGeluTanh, Activation::kSilu})
    for (const size_t offset : {0, 1}) {
      std::vector<float> x = random.vector(2001, -12, 12);
      for (const float value : {0.0f, 1e-20f, -1e-20f, 90.0f, -90.0f, 1e4f, -1e4f}) x.push_back(value);
      const auto count = static_cast<int64_t>(x.size());
      const std::vector<float> other = random.vector(count);
      const DeviceArray<float> alone(x, offset), gate(x, offset), gated(other, offset);
      cuda::activate(nullptr, f, nullptr, count, alone.data());
      cuda::activate(nullptr, f, gate.data(), count, gated.data());
      const auto y = alone.values(), z = gated.values();
      bool close = true, closeGated = true;
      for (size_t i = 0; i < x.size(); ++i) {
        const double expected = twinOf(f, x[i]);
        // The argument of the exponential is off by a few u of itself, which is at most some tens where the result is
        // not 0.
        const double tolerance = f == Activation::kRelu ? 0 : 16 * kU * std::abs(x[i]);
        close &= std::abs(y[i] - expected) <= tolerance;
        closeGated &=
            std::abs(z[i] - expected * other[i]) <= std::abs(other[i]) * (tolerance + 2 * kU * std::abs(expected));
      }
      const std::string name = "activation " + std::to_string(static_cast<int>(f));
      checks.that(close, name);
      checks.that(closeGated, name + " gated");
      const DeviceArray<float> nan(std::vector<float>{std::nanf("")});
      cuda::activate(nullptr, f, nullptr, 1, nan.data());
      checks.that(std::isnan(nan.values()[0]), name + " keeps NaN");
    }
}

void testAdd(Checks& checks) {
  Random random(6);
  for (const int64_t count : {1, 5, 16, 17, 1024, 4099})
    for (const size_t offset : {0, 1}) {
      const auto x = random.vector(count), before = random.vector(count);
      const DeviceArray<float> y(before, offset);
      cuda::add(nullptr, DeviceArray<float>(x, offset).data(), count, y.data());
      std::vector<float> expected = before;
      for (size_t i = 0; i < x.size(); ++i) expected[i] += x[i];
      checks.that(y.values() == expected, named("add", DataType::kFloat32, {count}));
    }
}

void testNorms(Checks& checks) {
  Random random(8);
  for (const bool rms : {false, true})
    for (const int64_t size : {1, 3, 17, 64, 100, 512, 513, 1000, 4096}) {
      const int64_t tokens = 11;
      const float epsilon = 1e-5f;
      const auto x = random.vector(tokens * size, -1, 3), weight = random.vector(size), bias = random.vector(size);
      const DeviceArray<float> y(x), deviceBias(bias);
      cuda::norm(nullptr, y.data(), DeviceArray<float>(weight).data(), rms ? nullptr : deviceBias.data(), epsilon,
                 tokens, size, y.data());
      const auto got = y.values();
      bool close = true;
      for (int64_t t = 0; t < tokens; ++t) {
        const float* row = x.data() + t * size;
        double mean = 0, squares = 0, spread = 0;
        for (int64_t i = 0; i < size && !rms; ++i) mean += row[i] / static_cast<double>(size);
        for (int64_t i = 0; i < size; ++i) squares += (row[i] - mean) * (row[i] - mean);
        for (int64_t i = 0; i < size; ++i) spread = std::max<double>(spread, std::abs(row[i]));
        const double inverse = 1 / std::sqrt(squares / static_cast<double>(size) + epsilon);
        for (int64_t i = 0; i < size; ++i) {
          const double shift = rms ? 0 : bias[index(i)];
          const double expected = (row[i] - mean) * inverse * weight[index(i)] + shift;
          // The mean is off by depth u spread, which the division by the deviation enlarges.
          const double tolerance =
              (static_cast<double>(size) / 32 + 16) * kU * (spread * inverse * 2 + std::abs(shift));
          close &= std::abs(got[index(t * size + i)] - expected) <= tolerance;
        }
      }
      checks.that(close, named(rms ? "rmsNorm" : "layerNorm", DataType::kFloat32, {size}));
    }
}

void testRope(Checks& checks) {
  Random random(9);
  for (const int64_t headDim : {2, 6, 16, 64, 80, 128}) {
    const int64_t tokens = 7, heads = 6, stride = heads * headDim + 5;
    const auto x = random.vector(tokens * stride);
    const std::vector<int32_t> positions{0, 1, 2, 3, 100, 4095, 131071};
    std::vector<float> frequencies;
    for (int64_t d = 0; d < headDim / 2; ++d)
      frequencies.push_back(
          static_cast<float>(std::pow(10000.0, -2.0 * static_cast<double>(d) / static_cast<double>(headDim))));
    const DeviceArray<float> device(x);
    cuda::rope(nullptr, DeviceArray<int32_t>(positions).data(), DeviceArray<float>(frequencies).data(), tokens, heads,
               headDim, stride, device.data());
    const auto y = device.values();
    bool close = true, untouched = true;
    for (int64_t t = 0; t < tokens; ++t) {
      const float* row = x.data() + t * stride;
      for (int64_t i = 0; i < heads * headDim; ++i) {
        const int64_t d = i % headDim, half = headDim / 2;
        const double angle = static_cast<float>(positions[index(t)]) * frequencies[index(d % half)];
        const double turned = d < half ? row[i] * std::cos(angle) - row[i + half] * std::sin(angle)
                                       : row[i] * std::cos(angle) + row[i - half] * std::sin(angle);
        close &= std::abs(y[index(t * stride + i)] - turned) <= 8 * kU;
      }
      for (int64_t i = heads * headDim; i < stride; ++i) untouched &= y[index(t * stride + i)] == row[i];
    }
    checks.that(close && untouched, named("rope", DataType::kFloat32, {headDim}));
  }
}

void testRepeatRow(Checks& checks) {
  Random random(11);
  for (const auto& [size, count] : {std::pair<int64_t, int64_t>{1, 1}, {300, 9}, {256, 17}}) {
    const int64_t stride = size + 3;
    const auto row = random.vector(size);
    std::vector<float> expected(index(count * stride), -7);
    for (int64_t t = 0; t < count; ++t) std::copy(row.begin(), row.end(), expected.begin() + t * stride);
    const DeviceArray<float> out(expected.size(), -7);
    cuda::repeatRow(nullptr, DeviceArray<float>(row).data(), size, count, stride, out.data());
    checks.that(out.values() == expected, named("repeatRow", DataType::kFloat32, {size, count}));
  }
}

// ---- Everything, in every order of threads --------------------------------------------------------------------------

void testAll(Checks& checks) {
  testConversions(checks);
  testQuantizer(checks);
  testStoreKvRows(checks);
  testCopies(checks);
  testActivations(checks);
  testAdd(checks);
  testNorms(checks);
  testRope(checks);
  testRepeatRow(checks);
}

}  // namespace
}  // namespace flexplan::test

// cuda_kernels_test [part]: all parts, or one of elements, matmul, experts, attention, sampling.
int main(int count, char** arguments) {
  using namespace flexplan::test;
  if (!hasGpu()) {
    std::printf("skipped: no GPU\n");
    return 0;
  }
  const std::string part = count > 1 ? arguments[1] : "";
  Checks checks;
  if (part.empty() || part == "elements") forEachOrder([&] { testAll(checks); });
  if (part.empty() || part == "matmul") testMatmul(checks);
  if (part.empty() || part == "experts") testExperts(checks);
  if (part.empty() || part == "attention") testAttention(checks);
  if (part.empty() || part == "sampling") testSampling(checks);
  return checks.finish();
}
