// The fitted 4-bit grid: every kernel set against the scalar meaning, and against the plain grid that it must not be
// worse than.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "quant/int4.h"
#include "quant/int4_fit.h"
#include "test/check.h"

namespace flexplan::test {
namespace {

using Bytes = std::vector<std::byte>;

std::string name(const char* what, int kind) {
  return std::string(cpu::isaName()) + " fit: " + what + ", kind " + std::to_string(kind);
}

// Squared error of each whole group of a row.
std::vector<double> groupErrors(const std::vector<float>& values, const Bytes& row) {
  std::vector<float> back(values.size());
  dequantizeInt4(row.data(), static_cast<int64_t>(values.size()), back.data());
  std::vector<double> errors(values.size() / kInt4GroupSize);
  for (size_t i = 0; i < errors.size() * kInt4GroupSize; ++i) {
    const double off = static_cast<double>(values[i]) - back[i];
    errors[i / kInt4GroupSize] += off * off;
  }
  return errors;
}

// Even kinds lie around 0, odd ones beside it; 0 and 1 are uniform, the others bell-shaped, 4 and 5 with outliers.
constexpr int kNumKinds = 6;
std::vector<float> rowOfKind(Random& random, int kind, int64_t cols) {
  const float width = std::ldexp(1.0f, static_cast<int>(random.below(24)) - 12);
  const float middle = kind % 2 == 0 ? 0 : width * random.uniform(-4, 4);
  std::vector<float> values(static_cast<size_t>(cols));
  for (float& value : values) {
    float sum = 0;
    for (int i = 0; i < 6; ++i) sum += random.uniform();
    const bool outlier = kind >= 4 && random.below(32) == 0;
    value = middle + width * (kind < 2 ? random.uniform() : outlier ? 8 * sum : sum);
  }
  return values;
}

struct Tally {
  int groups = 0, better = 0;
  double ratios = 0;  // of squared errors, fitted to plain
};

// One row as a kernel set fitted it, against the scalar meaning and the plain grid.
void checkRow(Checks& checks, int kind, const std::vector<float>& row, const Bytes& fitted, Tally& tally) {
  const auto cols = static_cast<int64_t>(row.size());
  Bytes twin(fitted.size()), plain(fitted.size());
  flexplan::fitInt4(row.data(), cols, twin.data());
  quantizeInt4(row.data(), cols, plain.data());
  checks.that(fitted == twin, name("the scalar fit", kind));
  const bool partial = cols % kInt4GroupSize != 0;
  const bool samePartial = std::equal(fitted.end() - kInt4GroupBytes, fitted.end(), plain.end() - kInt4GroupBytes);
  checks.that(!partial || samePartial, name("what is no whole group is plain", kind));
  const auto errors = groupErrors(row, fitted), plainErrors = groupErrors(row, plain);
  for (size_t g = 0; g < errors.size(); ++g) {
    checks.that(errors[g] <= plainErrors[g], name("never worse", kind));
    ++tally.groups;
    tally.better += errors[g] < plainErrors[g];
    tally.ratios += errors[g] / plainErrors[g];
  }
}

void testFit(Checks& checks, ThreadPool& pool) {
  Random random(13);
  ThreadPool one(1);
  for (int kind = 0; kind < kNumKinds; ++kind) {
    Tally tally;
    for (int i = 0; i < 60; ++i) {
      const int64_t cols = i % 5 == 0 ? 1 + random.below(700) : 64 * (1 + random.below(40));
      const int64_t rows = 1 + random.below(3);
      const std::vector<float> values = rowOfKind(random, kind, rows * cols);
      const auto stride = static_cast<int64_t>(rowBytes(DataType::kInt4, cols));
      Bytes fitted(static_cast<size_t>(rows * stride)), again(fitted.size());
      cpu::fitInt4(pool, values.data(), rows, cols, fitted.data());
      cpu::fitInt4(one, values.data(), rows, cols, again.data());
      checks.that(fitted == again, name("the same for any number of threads", kind));
      for (int64_t r = 0; r < rows; ++r) {
        const std::vector<float> row(values.begin() + r * cols, values.begin() + (r + 1) * cols);
        checkRow(checks, kind, row, Bytes(fitted.begin() + r * stride, fitted.begin() + (r + 1) * stride), tally);
      }
    }
    checks.that(tally.groups > 500 && tally.better > tally.groups * 9 / 10, name("mostly better", kind));
    checks.that(tally.ratios < tally.groups * 0.86, name("better by a seventh", kind));
  }
}

void testFitEdges(Checks& checks, ThreadPool& pool) {
  const float most = std::numeric_limits<float>::max(), tiny = std::numeric_limits<float>::denorm_min();
  const std::vector<std::vector<float>> kinds{
      {0}, {1}, {-2.5f}, {0.1f}, {1000.3f}, {tiny}, {0, tiny}, {0, 1e-7f}, {1, 1.0000001f}, {-most, most}, {most},
      {-most}, {-most, 0, 1}, {-1e6f, 3}, {0, 1e6f}, {-2e6f, -1e6f}, {65504, -65504}, {0, 0, 0, 0, 0, 0, 0, 1},
      {1e-30f, 2e-30f, -1e-30f}, {-0.0f, 0.0f}};
  std::vector<float> values;
  for (const auto& kind : kinds)
    for (size_t i = 0; i < kInt4GroupSize; ++i) values.push_back(kind[i % kind.size()]);
  const auto cols = static_cast<int64_t>(values.size());
  Bytes fitted(rowBytes(DataType::kInt4, cols)), twin(fitted.size()), plain(fitted.size());
  cpu::fitInt4(pool, values.data(), 1, cols, fitted.data());
  flexplan::fitInt4(values.data(), cols, twin.data());
  quantizeInt4(values.data(), cols, plain.data());
  const auto errors = groupErrors(values, fitted), plainErrors = groupErrors(values, plain);
  for (size_t g = 0; g < kinds.size(); ++g) {
    const auto begin = static_cast<int64_t>(g) * kInt4GroupBytes, end = begin + kInt4GroupBytes;
    const bool same = std::equal(fitted.begin() + begin, fitted.begin() + end, twin.begin() + begin);
    checks.that(same, name("the scalar fit of an edge", static_cast<int>(g)));
    checks.that(std::isfinite(errors[g]) && errors[g] <= plainErrors[g],
                name("finite and never worse at an edge", static_cast<int>(g)));
  }
}

int run() {
  Checks checks;
  ThreadPool pool(3);
  for (const cpu::Kernels* set : cpu::availableKernels()) {
    cpu::useKernels(*set);
    testFit(checks, pool);
    testFitEdges(checks, pool);
  }
  return checks.finish();
}

}  // namespace
}  // namespace flexplan::test

int main() { return flexplan::test::run(); }
