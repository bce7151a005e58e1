// The device memory in which one GPU batch is computed: fp32, reused from stage to stage.
#pragma once

#include <cstdint>

#include "engine/block.h"
#include "engine/engine_types.h"
#include "tier/device.h"

namespace flexplan {

struct Workspace {
  // maxTokens: most tokens of a GPU batch at prefill.
  Workspace(const EngineConfig& config, int64_t maxTokens, int64_t maxTableRowBytes, Device& device);

  TierBuffer memory;
  float* hidden;     // [T, hiddenSize]
  float* normed;     // [T, hiddenSize]
  float* embedding;  // [T, embeddingSize], when that differs from hiddenSize
  // Attention                               // Mixture, after attention
  float* q;                                  // gathered rows of one expert [T, hiddenSize]
  float* attended;   // [T, qSize]
  float* k;          // [T, kvSize]
  float* v;          // [T, kvSize]
  float* expertOut;  // [T, hiddenSize], overlaps the second half of the attention area
  float* up;         // [T, ffnSize]
  float* gate;       // [T, ffnSize]
  float* router;     // [T, numExperts]
  float* logits;     // [S, vocabSize]
  // Embed and head use everything from `q` on as one area.
  float* area;
  int64_t areaFloats;
};

}  // namespace flexplan
