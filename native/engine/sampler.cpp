#include "engine/sampler.h"

#include <algorithm>
#include <cmath>

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

}  // namespace

cpu::TokenChoice nextChoice(const Sequence& sequence, int64_t numGenerated) {
  return {sequence.temperature, sequence.topP, uniform(sequence.seed, static_cast<uint64_t>(numGenerated))};
}

float logProbability(std::span<const float> logits, int32_t token) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  return static_cast<float>(logits[static_cast<size_t>(token)] - highest - std::log(sum));
}

}  // namespace flexplan
