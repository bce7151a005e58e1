// Mixture of experts: each token goes through the few experts that its router scores highest.
#include <algorithm>

#include "engine/forward.h"

namespace flexplan {

// y[t] += sum over the experts e of token t, in order of e, of weight(t, e) * mlp_e(x[t])
//
// As many tokens at a time as have expert rows for the workspace: in decode all, and the weights are read once.
void Forward::runMixture(const LayerView& view, const DecoderLayer& layer, const float* x, int64_t tokens, float* y) {
  const int64_t numActive = shape_.numActiveExperts, hiddenSize = shape_.hiddenSize;
  const cpu::ExpertRows& rows = workspace_.expertRows;
  multiply(view, {layer.router, nullptr}, x, workspace_.router, tokens);
  const int64_t tokensAtOnce = maxTokens_ / numActive;
  for (int64_t first = 0; first < tokens; first += tokensAtOnce) {
    const int64_t count = std::min(tokensAtOnce, tokens - first);
    device_.route(workspace_.router + first * shape_.numExperts, count,
                  {shape_.numExperts, numActive, shape_.normalizeTopK}, rows);
    device_.gatherRows(x + first * hiddenSize, rows.tokens, count * numActive, hiddenSize, workspace_.expertIn);
    runExperts(view, layer, count * numActive);
    device_.addExpertRows(workspace_.expertOut, rows, count, numActive, hiddenSize, y + first * hiddenSize);
  }
}

// runMlp, with the weights of each row's expert.
void Forward::runExperts(const LayerView& view, const DecoderLayer& layer, int64_t numRows) {
  const int32_t* const ends = workspace_.expertRows.ends;
  float* const gate = shape_.gatedMlp ? workspace_.gate : nullptr;
  std::vector<cpu::Matmul> in, out;
  for (const Mlp& mlp : layer.mlps) {
    if (gate) in.push_back(product(view, mlp.gate, workspace_.expertIn, gate));
    in.push_back(product(view, mlp.up, workspace_.expertIn, workspace_.up));
    out.push_back(product(view, mlp.down, workspace_.up, workspace_.expertOut));
  }
  device_.matmulByExpert(in, ends, shape_.numExperts, numRows);
  device_.activate(shape_.activation, gate, numRows * shape_.ffnSize, workspace_.up);
  device_.matmulByExpert(out, ends, shape_.numExperts, numRows);
}

}  // namespace flexplan
