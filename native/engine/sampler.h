// Choosing the next token.
#pragma once

#include <cstdint>
#include <span>

#include "cpu/sampling.h"
#include "engine/engine_types.h"

namespace flexplan {

// How a sequence's next token is chosen. The random number depends on its seed and on how many tokens it has generated,
// so results do not depend on batching.
cpu::TokenChoice nextChoice(const Sequence& sequence, int64_t numGenerated);

// log softmax(logits)[token]
float logProbability(std::span<const float> logits, int32_t token);

}  // namespace flexplan
