// Choosing tokens.
#pragma once

#include <cstdint>
#include <span>

namespace flexplan::cpu {

// How one token is chosen: the most likely at temperature 0, else one of the smallest set of most likely tokens whose
// probability, after the division of logits by the temperature, reaches topP.
struct TokenChoice {
  double temperature;
  double topP;     // 1: any token
  double uniform;  // random, in [0, 1): where in the running sum of their probabilities
};

// The lowest id wins a tie. The running sum goes from the most likely down, with topP 1 by ids.
int32_t chooseToken(std::span<const float> logits, const TokenChoice& choice);

}  // namespace flexplan::cpu
