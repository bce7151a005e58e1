// Mixture of experts: each token goes through the few experts that its router scores highest.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/forward.h"

namespace flexplan {
namespace {

// The tokens that an expert gets, and the weight of its output for each.
struct Assignment {
  std::vector<int32_t> tokens;
  std::vector<float> weights;
};

// Softmax over all experts, then the top k (the lowest index wins a tie), then, if wanted, weights that sum to 1.
void assignToken(std::span<const float> scores, int32_t token, const ModelShape& shape,
                 std::vector<Assignment>& experts) {
  const float highest = *std::max_element(scores.begin(), scores.end());
  std::vector<float> weights(scores.size());
  float sum = 0;
  for (size_t e = 0; e < scores.size(); ++e) sum += weights[e] = std::exp(scores[e] - highest);
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto chosen = static_cast<size_t>(shape.numActiveExperts);
  std::partial_sort(order.begin(), order.begin() + shape.numActiveExperts, order.end(),
                    [&](size_t a, size_t b) { return weights[a] != weights[b] ? weights[a] > weights[b] : a < b; });
  if (shape.normalizeTopK) {
    sum = 0;
    for (size_t n = 0; n < chosen; ++n) sum += weights[order[n]];
  }
  for (size_t n = 0; n < chosen; ++n) {
    experts[order[n]].tokens.push_back(token);
    experts[order[n]].weights.push_back(weights[order[n]] / sum);
  }
}

}  // namespace

// y[t] += sum over the experts e of token t, in order of e, of weight(t, e) * mlp_e(x[t])
void Forward::runMixture(const LayerView& view, const DecoderLayer& layer, const float* x, int64_t tokens, float* y) {
  const int64_t numExperts = shape_.numExperts;
  multiply(view, {layer.router, nullptr}, x, workspace_.router, tokens);
  const auto scores = device_.view(workspace_.router, tokens * numExperts, hostScratch_);
  std::vector<Assignment> experts(static_cast<size_t>(numExperts));
  for (int64_t t = 0; t < tokens; ++t)
    assignToken(scores.subspan(static_cast<size_t>(t * numExperts), static_cast<size_t>(numExperts)),
                static_cast<int32_t>(t), shape_, experts);

  const int64_t hiddenBytes = shape_.hiddenSize * static_cast<int64_t>(sizeof(float));
  auto* const gathered = reinterpret_cast<std::byte*>(workspace_.expertIn);
  const auto* const rows = reinterpret_cast<const std::byte*>(x);
  for (size_t e = 0; e < experts.size(); ++e) {
    const Assignment& expert = experts[e];
    if (expert.tokens.empty()) continue;
    std::vector<CopyPiece> pieces;
    for (const int32_t token : expert.tokens)
      pieces.push_back(
          {gathered + static_cast<int64_t>(pieces.size()) * hiddenBytes, rows + token * hiddenBytes, hiddenBytes});
    device_.copy(pieces);
    runMlp(view, layer.mlps[e], workspace_.expertIn, static_cast<int64_t>(expert.tokens.size()), workspace_.expertOut);
    device_.addScaledRows(workspace_.expertOut, expert.tokens, expert.weights, shape_.hiddenSize, y);
  }
}

}  // namespace flexplan
