// Choosing the next token.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine_types.h"

namespace flexplan {

// Greedy at temperature 0 (the lowest id wins a tie), else by temperature and top-p. The random number depends on the
// sequence's seed and on how many tokens it has generated, so results do not depend on batching.
int32_t sampleToken(const Sequence& sequence, int64_t numGenerated, std::span<const float> logits);

// log softmax(logits)[token]
float logProbability(std::span<const float> logits, int32_t token);

}  // namespace flexplan
