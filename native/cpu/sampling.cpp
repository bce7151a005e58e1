#include "cpu/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace flexplan::cpu {
namespace {

struct Candidate {
  int32_t id;
  double weight;
};

// Most likely first; the lowest id among equals.
bool moreLikely(const Candidate& a, const Candidate& b) {
  return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
}

std::vector<Candidate> candidatesOf(std::span<const float> logits, double temperature) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  std::vector<Candidate> candidates(logits.size());
  for (size_t id = 0; id < logits.size(); ++id)
    candidates[id] = {static_cast<int32_t>(id), std::exp((logits[id] - highest) / temperature)};
  return candidates;
}

double totalWeight(std::span<const Candidate> candidates) {
  return std::accumulate(candidates.begin(), candidates.end(), 0.0,
                         [](double sum, const Candidate& candidate) { return sum + candidate.weight; });
}

// Keeps the smallest set of most likely candidates whose probability reaches topP.
void keepTop(std::vector<Candidate>& candidates, double topP) {
  std::sort(candidates.begin(), candidates.end(), moreLikely);
  const double wanted = topP * totalWeight(candidates);
  double sum = 0;
  size_t kept = 0;
  while (kept < candidates.size() && (kept == 0 || sum < wanted)) sum += candidates[kept++].weight;
  candidates.resize(kept);
}

}  // namespace

int32_t chooseToken(std::span<const float> logits, const TokenChoice& choice) {
  const auto best = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  if (choice.temperature <= 0) return best;
  std::vector<Candidate> candidates = candidatesOf(logits, choice.temperature);
  if (choice.topP < 1) keepTop(candidates, choice.topP);
  double left = choice.uniform * totalWeight(candidates);
  int32_t chosen = best;
  for (const Candidate& candidate : candidates) {
    if (!(candidate.weight > 0)) continue;
    chosen = candidate.id;  // the last one, where rounding leaves something
    left -= candidate.weight;
    if (left < 0) break;
  }
  return chosen;
}

}  // namespace flexplan::cpu
