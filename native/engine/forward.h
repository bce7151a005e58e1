// What one GPU batch computes in each schedule layer, on any device and for every family of models.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "engine/block.h"
#include "engine/embedding.h"
#include "engine/hidden_states.h"
#include "engine/kv_cache.h"
#include "engine/shared_prefixes.h"
#include "engine/stage_clock.h"
#include "engine/workspace.h"
#include "model/layers.h"

namespace flexplan {

// The model's layers, resolved once per engine.
struct ModelLayers {
  ModelLayers(const ModelShape& shape, const Weights& weights);
  EmbedLayer embed;
  std::vector<DecoderLayer> decoders;
  HeadLayer head;
};

class Forward {
 public:
  // Takes the workspace for launches of at most `maxTokens` tokens (mixtures: as many as a token has active experts, at
  // least); items of more go through in pieces.
  Forward(const EngineConfig& config, const Weights& weights, const ModelLayers& layers, ThreadPool& pool,
          Transfer& transfer, Budgets& budgets, KvCache& kvCache, HiddenStates& hiddenStates, SharedPrefixes& prefixes,
          StageClock& clock, int64_t maxTokens);

  // Each computes one item. `buffer`: where the layer's weights were streamed to. Input and output are the hidden
  // states.
  void embed(const Item& item, const BatchStep& step, const std::byte* buffer);
  void decode(const Item& item, const BatchStep& step, const std::byte* buffer);
  // The next token of each active slot.
  std::vector<int32_t> head(const Item& item, const BatchStep& step, std::span<const cpu::TokenChoice> choices,
                            const std::byte* buffer);
  // After head(): the logits that the token of active slot n was chosen by, valid until the next call.
  std::span<const float> logits(int64_t n);
  // The log-probability of each prompt token of the slot but the first.
  std::vector<float> scorePrompt(const Item& item, const BatchStep& step, const ActiveSlot& active,
                                 const std::byte* buffer);

 private:
  struct LayerView {
    const LayerWeights& weights;
    const std::byte* buffer;
  };
  cpu::Matmul product(const LayerView& layer, const Projection& projection, const float* x, float* out) const;
  void multiply(const LayerView& layer, const Projection& projection, const float* x, float* out, int64_t tokens);
  void normalize(const Norm& norm, const float* x, float* y, int64_t tokens);
  // Rows of the item's step that are computed in one launch, as a step of their own.
  struct Piece {
    const Item& item;
    const BatchStep& whole;
    const BatchStep& step;
    int64_t firstRow;  // in `whole`
    const std::byte* buffer;
  };
  template <typename Compute>
  void inPieces(const Item& item, const BatchStep& step, const std::byte* buffer, Compute&& compute);
  void embedPiece(const Piece& piece);
  void decodePiece(const Piece& piece);
  void readHidden(const Item& item, const BatchStep& step, int64_t firstRow, int64_t numRows);
  void writeHidden(const Piece& piece);
  void projectQkv(const BatchStep& step, const LayerView& view, const DecoderLayer& layer, const float* x);
  void storeNewKvRows(const Item& item, const BatchStep& step);
  cpu::AttentionShape attentionShape() const;
  class AttendedPages;
  void attendOnDevice(const Item& item, const BatchStep& step);
  void attendOnCpu(const Item& item, const BatchStep& step, int64_t projected);
  void runMlp(const LayerView& view, const Mlp& mlp, const float* x, int64_t tokens, float* out);
  void runMixture(const LayerView& view, const DecoderLayer& layer, const float* x, int64_t tokens, float* y);
  void runExperts(const LayerView& view, const DecoderLayer& layer, int64_t numRows);
  void project(const LayerView& view, int64_t tokens, float* logits);

  const ModelShape& shape_;
  const Weights& weights_;
  const ModelLayers& layers_;
  ThreadPool& pool_;
  Transfer& transfer_;
  Device& device_;
  KvCache& kvCache_;
  HiddenStates& hiddenStates_;
  SharedPrefixes& prefixes_;
  StageClock& clock_;
  EmbeddingReader embedding_;
  const int64_t maxTokens_;
  const double sparseValueFraction_;
  Workspace workspace_;
  TierBuffer cpuAttentionWorkspace_;  // q, then the output: [S, qSize] each
  std::vector<float> hostScratch_;
};

}  // namespace flexplan
