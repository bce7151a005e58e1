#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace flexplan {
namespace {

// The finaliser of splitmix64: every input bit reaches every output bit.
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Uniform in [0, 1), a pure function of its arguments.
double uniform(uint64_t seed, uint64_t counter) {
  const uint64_t bits = mix(mix(seed + 0x9e3779b97f4a7c15u) + (counter + 1) * 0x9e3779b97f4a7c15u);
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

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

int32_t sampleToken(const Sequence& sequence, int64_t numGenerated, std::span<const float> logits) {
  const auto best = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  if (sequence.temperature <= 0) return best;
  std::vector<Candidate> candidates = candidatesOf(logits, sequence.temperature);
  if (sequence.topP < 1) keepTop(candidates, sequence.topP);
  double left = uniform(sequence.seed, static_cast<uint64_t>(numGenerated)) * totalWeight(candidates);
  for (const Candidate& candidate : candidates) {
    left -= candidate.weight;
    if (left < 0) return candidate.id;
  }
  return best;
}

float logProbability(std::span<const float> logits, int32_t token) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  return static_cast<float>(logits[static_cast<size_t>(token)] - highest - std::log(sum));
}

}  // namespace flexplan
