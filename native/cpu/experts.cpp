#include "cpu/experts.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace flexplan::cpu {
namespace {

float comparable(float score) { return std::isnan(score) ? -INFINITY : score; }

// experts, weights: [numActive]
void choose(const float* scores, const Routing& routing, int32_t* experts, float* weights) {
  std::vector<int32_t> order(static_cast<size_t>(routing.numExperts));
  std::iota(order.begin(), order.end(), 0);
  const auto end = order.begin() + routing.numActive;
  std::partial_sort(order.begin(), end, order.end(), [&](int32_t a, int32_t b) {
    const float first = comparable(scores[a]), second = comparable(scores[b]);
    return first != second ? first > second : a < b;
  });
  const float highest = scores[order.front()];
  std::sort(order.begin(), end);
  if (!routing.normalize) std::sort(end, order.end());
  float sum = 0;
  for (auto expert = order.begin(); expert != (routing.normalize ? end : order.end()); ++expert)
    sum += std::exp(scores[*expert] - highest);
  for (int64_t n = 0; n < routing.numActive; ++n) {
    experts[n] = order[static_cast<size_t>(n)];
    weights[n] = std::exp(scores[experts[n]] - highest) / sum;
  }
}

}  // namespace

void route(const float* scores, int64_t tokens, const Routing& routing, const ExpertRows& out) {
  const int64_t numActive = routing.numActive;
  std::fill_n(out.ends, routing.numExperts, 0);
  for (int64_t t = 0; t < tokens; ++t) {
    choose(scores + t * routing.numExperts, routing, out.experts + t * numActive, out.weights + t * numActive);
    for (int64_t n = 0; n < numActive; ++n) ++out.ends[out.experts[t * numActive + n]];
  }
  std::partial_sum(out.ends, out.ends + routing.numExperts, out.ends);
  std::vector<int32_t> next(static_cast<size_t>(routing.numExperts));
  std::copy_n(out.ends, routing.numExperts - 1, next.begin() + 1);
  for (int64_t i = 0; i < tokens * numActive; ++i) {
    out.rows[i] = next[static_cast<size_t>(out.experts[i])]++;
    out.tokens[out.rows[i]] = static_cast<int32_t>(i / numActive);
  }
}

}  // namespace flexplan::cpu
