// The layers of every family as one description: what is absent is null.
#pragma once

#include <vector>

#include "model/weights.h"

namespace flexplan {

struct Norm {
  const float* weight = nullptr;
  const float* bias = nullptr;  // null: RMS norm
};

// x -> x W^T + bias
struct Projection {
  const Matrix* matrix = nullptr;
  const float* bias = nullptr;
};

struct Mlp {
  Projection gate, up, down;
};

struct EmbedLayer {
  const Matrix* tokens;             // [vocabSize, embeddingSize]
  const LayerWeights* tokensLayer;  // the head's when it is tied
  const Matrix* positions;          // [positions, hiddenSize]; null: rope
  const LayerWeights* positionsLayer;
  Projection projectIn;
};

struct DecoderLayer {
  Norm attentionNorm, mlpNorm;
  Projection q, k, v, o;
  const float* qNorm;
  const float* kNorm;
  const Matrix* router;
  std::vector<Mlp> mlps;  // one, or one per expert
};

struct HeadLayer {
  Norm norm;
  Projection projectOut, head;
};

// Throw Error kBadInput when a tensor is missing or has another shape than the model asks for.
EmbedLayer resolveEmbed(const ModelShape& shape, const Weights& weights);
DecoderLayer resolveDecoder(const ModelShape& shape, const Weights& weights, int64_t scheduleLayer);
HeadLayer resolveHead(const ModelShape& shape, const Weights& weights);

}  // namespace flexplan
