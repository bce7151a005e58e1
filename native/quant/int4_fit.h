// A better grid for a group than the one that spans its values (int4Range): the one with the least squared error that a
// short search finds. That takes longer, which suits what is quantized once, the weights, and not the KV cache.
//
// x = (value - lowest) / (highest - lowest). A line start + step * q, q in 0..15, gives each x the nearest of its
// points. For those q the best line of all is the least-squares fit of x to q, whose squared error is less than that of
// x's mean by
//   covariance^2 / (64 variance)    covariance = 64 sum qx - sum q sum x, variance = 64 sum qq - (sum q)^2
// The search fits to the points of 9 lines, which leave out 0, 1/2 or 1 step at either end, and then twice to those of
// the best fit so far. The grid is the best fit in fp16, unless the plain one has no larger error.
#pragma once

#include "quant/int4.h"

namespace flexplan {

// Raised whenever some values get other bits than before: files of quantized weights name it.
constexpr int kInt4FitVersion = 1;
// Left out at either end, in steps of the line that spans all values.
constexpr float kInt4FitCuts[] = {0.0f, 0.5f, 1.0f};
constexpr int kInt4FitRefinements = 2;
// Summed squared errors must differ by more than fp32 sums of 64 can be off.
constexpr float kInt4FitMargin = 1 + 0x1p-16f;

// 1 / (highest - lowest), or 0 where there is nothing to search: values that are equal, or too close or too far apart.
float int4FitScale(float lowest, float highest);

// Scalar meaning of the fit, as quantizeInt4 is of the plain grid; no group's squared error is larger than there. A
// group that is not whole has the plain grid: its padding is no part of the error.
void fitInt4(const float* values, int64_t cols, std::byte* row);

}  // namespace flexplan
