#include "model/layers.h"

#include "core/error.h"

namespace flexplan {
namespace {

[[noreturn]] void missing(const std::string& what, int64_t layer, const std::string& got) {
  throw Error(ErrorCode::kBadInput, "expected " + what + " in schedule layer " + std::to_string(layer) + ", got " +
                                        got + "; check that the files belong to the configuration");
}

// Looks tensors up in one schedule layer.
class Resolver {
 public:
  Resolver(const Weights& weights, int64_t layer) : layer_(weights.layer(layer)), index_(layer) {}

  const Matrix* matrix(const std::string& role, int64_t rows, int64_t cols) const {
    const Matrix* const found = layer_.find(role);
    const std::string what = "matrix " + role + " of " + std::to_string(rows) + " x " + std::to_string(cols);
    if (!found) missing(what, index_, "none");
    if (found->rows != rows || found->cols != cols)
      missing(what, index_, std::to_string(found->rows) + " x " + std::to_string(found->cols));
    return found;
  }
  const float* vector(const std::string& role, int64_t size) const {
    const VectorView* const found = layer_.findVector(role);
    if (found && found->size != size)
      missing("vector " + role + " of " + std::to_string(size), index_, std::to_string(found->size));
    return found ? found->data : nullptr;
  }
  Norm norm(const std::string& role, int64_t size, bool rms) const {
    const Norm norm{vector(role, size), rms ? nullptr : vector(role + "Bias", size)};
    if (!norm.weight || (!rms && !norm.bias))
      missing("vectors " + role + (rms ? "" : " and " + role + "Bias"), index_, "none");
    return norm;
  }
  Projection projection(const std::string& role, int64_t rows, int64_t cols) const {
    return {matrix(role, rows, cols), vector(role + "Bias", rows)};
  }
  Mlp mlp(const std::string& prefix, const ModelShape& shape) const {
    Mlp mlp;
    if (shape.gatedMlp) mlp.gate = projection(prefix + "gate", shape.ffnSize, shape.hiddenSize);
    mlp.up = projection(prefix + "up", shape.ffnSize, shape.hiddenSize);
    mlp.down = projection(prefix + "down", shape.hiddenSize, shape.ffnSize);
    return mlp;
  }
  const LayerWeights& layer() const { return layer_; }

 private:
  const LayerWeights& layer_;
  const int64_t index_;
};

}  // namespace

EmbedLayer resolveEmbed(const ModelShape& shape, const Weights& weights) {
  const Resolver embed(weights, 0);
  const Resolver tokens(weights, shape.tiedEmbeddings ? shape.headLayer() : 0);
  EmbedLayer layer{};
  layer.tokens = tokens.matrix(shape.tiedEmbeddings ? "head" : "tokenEmbedding", shape.vocabSize, shape.embeddingSize);
  layer.tokensLayer = &tokens.layer();
  layer.positionsLayer = &embed.layer();
  if (shape.learnedPositions) {
    const Matrix* const table = embed.layer().find("positionEmbedding");
    layer.positions = embed.matrix("positionEmbedding", table ? table->rows : 0, shape.hiddenSize);
  }
  if (shape.projectsEmbedding()) layer.projectIn = embed.projection("projectIn", shape.hiddenSize, shape.embeddingSize);
  return layer;
}

DecoderLayer resolveDecoder(const ModelShape& shape, const Weights& weights, int64_t scheduleLayer) {
  const Resolver from(weights, scheduleLayer);
  DecoderLayer layer{};
  layer.attentionNorm = from.norm("attentionNorm", shape.hiddenSize, shape.rmsNorm);
  layer.mlpNorm = from.norm("mlpNorm", shape.hiddenSize, shape.rmsNorm);
  layer.q = from.projection("q", shape.qSize(), shape.hiddenSize);
  layer.k = from.projection("k", shape.kvSize(), shape.hiddenSize);
  layer.v = from.projection("v", shape.kvSize(), shape.hiddenSize);
  layer.o = from.projection("o", shape.hiddenSize, shape.qSize());
  if (shape.qkNorm) {
    layer.qNorm = from.norm("qNorm", shape.headDim, true).weight;
    layer.kNorm = from.norm("kNorm", shape.headDim, true).weight;
  }
  if (shape.numExperts == 0) {
    layer.mlps.push_back(from.mlp("", shape));
    return layer;
  }
  layer.router = from.matrix("router", shape.numExperts, shape.hiddenSize);
  for (int64_t e = 0; e < shape.numExperts; ++e)
    layer.mlps.push_back(from.mlp("experts." + std::to_string(e) + ".", shape));
  return layer;
}

HeadLayer resolveHead(const ModelShape& shape, const Weights& weights) {
  const Resolver from(weights, shape.headLayer());
  HeadLayer layer{};
  if (shape.finalNorm) layer.norm = from.norm("finalNorm", shape.hiddenSize, shape.rmsNorm);
  if (shape.projectsEmbedding())
    layer.projectOut = from.projection("projectOut", shape.embeddingSize, shape.hiddenSize);
  layer.head = from.projection("head", shape.vocabSize, shape.embeddingSize);
  return layer;
}

}  // namespace flexplan
