// What is computed: NativeModel and NativeTensor of src/engine/native-addon.ts, as native code holds them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "core/data_type.h"
#include "cpu/ops.h"

namespace flexplan {

struct ModelShape {
  int64_t numLayers, hiddenSize, ffnSize, numHeads, numKvHeads, headDim, vocabSize, embeddingSize;
  DataType dtype;  // the storage type of hidden states; the KV cache's too, unless quantized or bf16 (then it is fp16)
  bool tiedEmbeddings;
  bool rmsNorm;
  float normEpsilon;
  bool preNorm;
  bool finalNorm;
  bool learnedPositions;
  int64_t positionOffset;
  std::vector<float> inverseFrequencies;  // rope: headDim / 2
  bool qkNorm;
  bool gatedMlp;
  cpu::Activation activation;
  int64_t slidingWindow;  // 0: none
  int64_t numExperts;     // 0: dense
  int64_t numActiveExperts;
  bool normalizeTopK;

  int64_t qSize() const { return numHeads * headDim; }
  int64_t kvSize() const { return numKvHeads * headDim; }
  bool projectsEmbedding() const { return embeddingSize != hiddenSize; }
  // Most columns of a matmul.
  int64_t widestInput() const { return std::max({hiddenSize, qSize(), ffnSize, embeddingSize}); }
  // Schedule layers: embed, decoder layers, head.
  int64_t numScheduleLayers() const { return numLayers + 2; }
  int64_t headLayer() const { return numLayers + 1; }
  int64_t hiddenBytes() const { return static_cast<int64_t>(rowBytes(dtype, hiddenSize)); }
};

struct TensorSource {
  int64_t layer;  // schedule layer
  std::string role;
  std::string path;
  int64_t byteOffset;
  DataType dtype;
  int64_t rows, cols;
  // Rows [0, gpuRows) live on the gpu tier, the next cpuRows on the cpu tier, the rest on disk. Vectors: the device
  // tier.
  int64_t gpuRows, cpuRows;
};

}  // namespace flexplan
