// Mixtures of experts: which tokens of a launch go through which experts.
#pragma once

#include <cstdint>

namespace flexplan::cpu {

struct Routing {
  int64_t numExperts, numActive;  // active: of each token, 0 < numActive <= numExperts
  bool normalize;  // the weights of a token sum to 1; else they are those of the softmax over all experts
};

// An expert row is a token that goes through an expert. Rows are sorted by expert, those of one expert by token.
struct ExpertRows {
  int32_t* ends;     // [numExperts]: expert e has rows [ends[e - 1], ends[e])
  int32_t* tokens;   // [tokens * numActive]: of each row
  int32_t* experts;  // [tokens, numActive]: of each token, ascending
  int32_t* rows;     // [tokens, numActive]: where they are
  float* weights;    // [tokens, numActive]
};
constexpr int64_t expertRowsWords(int64_t numRows, int64_t numExperts) { return numExperts + 4 * numRows; }

// Each token's numActive experts are those with the highest scores [tokens, numExperts], of equal ones the lower; a NaN
// is the lowest score. Their weights: softmax(scores).
void route(const float* scores, int64_t tokens, const Routing& routing, const ExpertRows& out);

}  // namespace flexplan::cpu
