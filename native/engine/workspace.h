// The device memory in which one GPU batch is computed: fp32, reused from stage to stage.
#pragma once

#include <cstdint>

#include "engine/block.h"
#include "engine/engine_types.h"
#include "cpu/experts.h"
#include "model/device.h"

namespace flexplan {

struct Workspace {
  // maxTokens: most tokens of a launch.
  Workspace(const EngineConfig& config, int64_t maxTokens, int64_t maxTableRowBytes, Device& device);

  TierBuffer memory;
  float* hidden;     // [T, hiddenSize]
  float* normed;     // [T, hiddenSize]
  float* embedding;  // [T, embeddingSize], when that differs from hiddenSize
  float* q;          // [T, qSize]
  float* attended;   // [T, qSize]
  float* k;          // [T, kvSize]
  float* v;          // [T, kvSize]
  // Mixtures, when attention is done, in the same memory: expert rows, and what the experts make of them.
  float* expertIn;   // [T, hiddenSize]
  float* expertOut;  // [T, hiddenSize]
  float* up;         // [T, ffnSize]
  float* gate;       // [T, ffnSize]
  float* router;     // [T, numExperts]
  cpu::ExpertRows expertRows;  // of at most T rows
  float* logits;     // [S, vocabSize]
  // Everything from `q` on, as one area for embed and head.
  float* area;
  int64_t areaFloats;
};

}  // namespace flexplan
