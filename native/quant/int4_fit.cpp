#include "quant/int4_fit.h"

#include <algorithm>
#include <cmath>

namespace flexplan {
namespace {

// Every operation is one of the vector kernels' own, in their order, and NaN (0 / 0 where a scale is 0) passes as
// there.
float nearestPoint(float steps) {
  const float atLeast0 = 0.0f > steps ? 0.0f : steps;
  return std::nearbyint(kMaxInt4 < atLeast0 ? kMaxInt4 : atLeast0);
}

struct Line {
  float start, step;
  float explained;
};

// The least-squares line of the points that `line` gives to x.
Line refit(const float* x, float sumX, const Line& line) {
  const float stepsPerX = 1 / line.step;
  float sum = 0, squares = 0, products = 0;
  for (int64_t i = 0; i < kInt4GroupSize; ++i) {
    const float q = nearestPoint((x[i] - line.start) * stepsPerX);
    sum += q;
    squares += q * q;
    products += q * x[i];
  }
  const float covariance = kInt4GroupSize * products - sum * sumX;
  const float step = covariance / (kInt4GroupSize * squares - sum * sum);
  return {(sumX - step * sum) / kInt4GroupSize, step, covariance * step};
}

Line searchLine(const float* x) {
  float sumX = 0;
  for (int64_t i = 0; i < kInt4GroupSize; ++i) sumX += x[i];
  Line best{};
  const auto consider = [&](const Line& from) {
    const Line line = refit(x, sumX, from);
    if (line.explained > best.explained) best = line;
  };
  for (const float low : kInt4FitCuts)
    for (const float high : kInt4FitCuts) {
      const float step = (kMaxInt4 - low - high) / (kMaxInt4 * kMaxInt4);
      consider({low / kMaxInt4, step, 0});
    }
  for (int i = 0; i < kInt4FitRefinements; ++i) consider(best);
  return best;
}

float squaredError(const float* values, const Int4Range& range) {
  float sum = 0;
  for (int64_t i = 0; i < kInt4GroupSize; ++i) {
    const float error = values[i] - (nearestPoint((values[i] - range.min) / range.scale) * range.scale + range.min);
    sum += error * error;
  }
  return sum;
}

Int4Range fitRange(const float* values) {
  const auto [lowest, highest] = std::minmax_element(values, values + kInt4GroupSize);
  const Int4Range plain = int4Range(*lowest, *highest);
  const float scale = int4FitScale(*lowest, *highest);
  if (scale == 0) return plain;
  float x[kInt4GroupSize];
  for (int64_t i = 0; i < kInt4GroupSize; ++i) x[i] = (values[i] - *lowest) * scale;
  const Line line = searchLine(x);
  const Int4Range fitted = nearestInt4Range(*lowest + line.start / scale, line.step / scale);
  return squaredError(values, fitted) * kInt4FitMargin < squaredError(values, plain) ? fitted : plain;
}

}  // namespace

float int4FitScale(float lowest, float highest) {
  const float scale = 1 / (highest - lowest);
  return std::isfinite(scale) ? scale : 0;
}

void fitInt4(const float* values, int64_t cols, std::byte* row) {
  for (; cols >= kInt4GroupSize; cols -= kInt4GroupSize, values += kInt4GroupSize, row += kInt4GroupBytes)
    encodeInt4Group(values, kInt4GroupSize, fitRange(values), row);
  quantizeInt4(values, cols, row);
}

}  // namespace flexplan
