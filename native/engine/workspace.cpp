#include "engine/workspace.h"

#include <algorithm>

namespace flexplan {

Workspace::Workspace(const EngineConfig& config, int64_t maxTokens, int64_t maxTableRowBytes, Device& device) {
  const ModelShape& shape = config.model;
  const int64_t tokens = maxTokens;
  const int64_t attention = 2 * shape.qSize() + 2 * shape.kvSize();
  const int64_t attentionArea = shape.numExperts > 0 ? std::max(attention, 2 * shape.hiddenSize) : attention;
  const int64_t perToken = attentionArea + shape.ffnSize * (shape.gatedMlp ? 2 : 1) + shape.numExperts;
  const int64_t embeddingFloats = shape.projectsEmbedding() ? tokens * shape.embeddingSize : 0;
  const auto tableRowFloats =
      (maxTableRowBytes + static_cast<int64_t>(sizeof(float)) - 1) / static_cast<int64_t>(sizeof(float));
  const int64_t tables = shape.numExperts > 0 ? cpu::expertRowsWords(tokens, shape.numExperts) : 0;
  areaFloats = std::max(tokens * perToken + tables + config.gpuBatchSize * shape.vocabSize, tokens * tableRowFloats);

  const int64_t floats = 2 * tokens * shape.hiddenSize + embeddingFloats + areaFloats;
  memory = device.allocate(floats * static_cast<int64_t>(sizeof(float)), "the workspace");
  float* next = memory.as<float>();
  const auto take = [&](int64_t count) {
    float* const here = next;
    next += count;
    return here;
  };
  hidden = take(tokens * shape.hiddenSize);
  normed = take(tokens * shape.hiddenSize);
  embedding = take(embeddingFloats);
  area = next;
  q = take(tokens * shape.qSize());
  attended = take(tokens * shape.qSize());
  k = take(tokens * shape.kvSize());
  v = take(tokens * shape.kvSize());
  expertIn = area;
  expertOut = area + tokens * shape.hiddenSize;
  next = area + tokens * attentionArea;
  up = take(tokens * shape.ffnSize);
  gate = take(shape.gatedMlp ? tokens * shape.ffnSize : 0);
  router = take(tokens * shape.numExperts);
  if (shape.numExperts > 0) {
    const auto takeNumbers = [&](int64_t count) { return reinterpret_cast<int32_t*>(take(count)); };
    expertRows = {takeNumbers(shape.numExperts), takeNumbers(tokens), takeNumbers(tokens), takeNumbers(tokens),
                  take(tokens)};
  }
  logits = take(config.gpuBatchSize * shape.vocabSize);
}

}  // namespace flexplan
