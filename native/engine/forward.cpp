#include "engine/forward.h"

#include <algorithm>

#include "engine/sampler.h"

namespace flexplan {
namespace {

constexpr int64_t kFloatBytes = sizeof(float);

}  // namespace

ModelLayers::ModelLayers(const ModelShape& shape, const Weights& weights)
    : embed(resolveEmbed(shape, weights)), head(resolveHead(shape, weights)) {
  for (int64_t j = 1; j <= shape.numLayers; ++j) decoders.push_back(resolveDecoder(shape, weights, j));
}

Forward::Forward(const EngineConfig& config, const Weights& weights, const ModelLayers& layers, ThreadPool& pool,
                 Transfer& transfer, Budgets& budgets, KvCache& kvCache, HiddenStates& hiddenStates,
                 SharedPrefixes& prefixes, StageClock& clock, int64_t maxTokens)
    : shape_(config.model),
      weights_(weights),
      layers_(layers),
      pool_(pool),
      transfer_(transfer),
      device_(transfer.device()),
      kvCache_(kvCache),
      hiddenStates_(hiddenStates),
      prefixes_(prefixes),
      clock_(clock),
      embedding_(layers.embed, transfer, budgets),
      maxTokens_(maxTokens),
      sparseValueFraction_(config.sparseValueFraction),
      workspace_(config, maxTokens, embedding_.widestRowBytes(), device_) {
  if (!config.attendsOnCpu()) return;
  cpuAttentionWorkspace_ = TierBuffer::onHost(
      *budgets[Tier::kCpu], 2 * config.gpuBatchSize * shape_.qSize() * kFloatBytes, "attention on the CPU");
}

cpu::Matmul Forward::product(const LayerView& layer, const Projection& projection, const float* x, float* out) const {
  const Matrix& matrix = *projection.matrix;
  return {weights_.resolve(layer.weights, matrix, layer.buffer), projection.bias, x, matrix.cols, out, matrix.rows};
}

void Forward::multiply(const LayerView& layer, const Projection& projection, const float* x, float* out,
                       int64_t tokens) {
  const cpu::Matmul op = product(layer, projection, x, out);
  device_.matmul({&op, 1}, tokens);
}

void Forward::normalize(const Norm& norm, const float* x, float* y, int64_t tokens) {
  device_.norm(x, norm.weight, norm.bias, shape_.normEpsilon, tokens, shape_.hiddenSize, y);
}

void Forward::readHidden(const Item& item, const BatchStep& step, int64_t firstRow, int64_t numRows) {
  for (const HiddenStates::Run& run : hiddenStates_.runs(item, step, firstRow, numRows))
    device_.toFloat(shape_.dtype, run.data, run.numRows, shape_.hiddenSize,
                    workspace_.hidden + run.firstRow * shape_.hiddenSize);
}

void Forward::writeHidden(const Piece& piece) {
  for (const HiddenStates::Run& run :
       hiddenStates_.runs(piece.item, piece.whole, piece.firstRow, piece.step.numTokens()))
    device_.fromFloat(shape_.dtype, workspace_.hidden + run.firstRow * shape_.hiddenSize, run.numRows,
                      shape_.hiddenSize, run.data);
}

template <typename Compute>
void Forward::inPieces(const Item& item, const BatchStep& step, const std::byte* buffer, Compute&& compute) {
  if (step.numTokens() <= maxTokens_) return compute(Piece{item, step, step, 0, buffer});
  for (int64_t row = 0; row < step.numTokens(); row += maxTokens_) {
    const BatchStep part = step.piece(row, maxTokens_);
    compute(Piece{item, step, part, row, buffer});
  }
}

void Forward::embed(const Item& item, const BatchStep& step, const std::byte* buffer) {
  inPieces(item, step, buffer, [this](const Piece& piece) { embedPiece(piece); });
}

void Forward::decode(const Item& item, const BatchStep& step, const std::byte* buffer) {
  {
    const auto timed = clock_.compute(step.phase());
    prefixes_.take(item, step);
  }
  inPieces(item, step, buffer, [this](const Piece& piece) { decodePiece(piece); });
  const auto timed = clock_.compute(step.phase());
  prefixes_.keep(item, step);
}

void Forward::embedPiece(const Piece& piece) {
  const auto& [item, whole, step, firstRow, buffer] = piece;
  const EmbedLayer& layer = layers_.embed;
  const int64_t tokens = step.numTokens();
  const Phase phase = step.phase();
  auto* const rows = reinterpret_cast<std::byte*>(workspace_.area);
  embedding_.gather(phase, *layer.tokensLayer, *layer.tokens, step.tokenIds, 0, rows);
  {
    const auto timed = clock_.compute(phase);
    float* const embedded = shape_.projectsEmbedding() ? workspace_.embedding : workspace_.hidden;
    device_.toFloat(layer.tokens->dtype, rows, tokens, shape_.embeddingSize, embedded);
    if (shape_.projectsEmbedding())
      multiply({weights_.layer(0), buffer}, layer.projectIn, embedded, workspace_.hidden, tokens);
  }
  if (layer.positions)
    embedding_.gather(phase, *layer.positionsLayer, *layer.positions, step.positions, shape_.positionOffset, rows);
  const auto timed = clock_.compute(phase);
  if (layer.positions) {
    device_.toFloat(layer.positions->dtype, rows, tokens, shape_.hiddenSize, workspace_.normed);
    device_.add(workspace_.normed, tokens * shape_.hiddenSize, workspace_.hidden);
  }
  writeHidden(piece);
}

// pre-norm:   h += attention(norm(h));        h += mlp(norm(h))
// post-norm:  h = norm(h + attention(h));     h = norm(h + mlp(h))
void Forward::decodePiece(const Piece& piece) {
  const auto& [item, whole, step, firstRow, buffer] = piece;
  const DecoderLayer& layer = layers_.decoders[static_cast<size_t>(item.layer - 1)];
  const LayerView view{weights_.layer(item.layer), buffer};
  const int64_t tokens = step.numTokens();
  float* const hidden = workspace_.hidden;
  float* const normed = workspace_.normed;
  const float* const input = shape_.preNorm ? normed : hidden;
  {
    const auto timed = clock_.compute(step.phase());
    readHidden(item, whole, firstRow, tokens);
    if (shape_.preNorm) normalize(layer.attentionNorm, hidden, normed, tokens);
    projectQkv(step, view, layer, input);
    storeNewKvRows(item, step);
    prefixes_.copyWithin(item, step);
  }
  const int64_t projected = device_.mark();
  {
    const auto timed = clock_.compute(step.phase());
    attendOnDevice(item, step);
  }
  attendOnCpu(item, step, projected);
  const auto timed = clock_.compute(step.phase());
  multiply(view, layer.o, workspace_.attended, normed, tokens);
  device_.add(normed, tokens * shape_.hiddenSize, hidden);
  normalize(shape_.preNorm ? layer.mlpNorm : layer.attentionNorm, hidden, shape_.preNorm ? normed : hidden, tokens);
  if (layer.router) {
    runMixture(view, layer, input, tokens, hidden);
  } else {
    runMlp(view, layer.mlps.front(), input, tokens, normed);
    device_.add(normed, tokens * shape_.hiddenSize, hidden);
  }
  if (!shape_.preNorm) normalize(layer.mlpNorm, hidden, hidden, tokens);
  writeHidden(piece);
}

void Forward::projectQkv(const BatchStep& step, const LayerView& view, const DecoderLayer& layer, const float* x) {
  const int64_t tokens = step.numTokens();
  cpu::Matmul ops[] = {product(view, layer.q, x, workspace_.q), product(view, layer.k, x, workspace_.k),
                       product(view, layer.v, x, workspace_.v)};
  // Scores are exponents: of all matmuls these make most of the error when tokens are rounded.
  for (cpu::Matmul& op : ops) op.exactTokens = true;
  device_.matmul(ops, tokens);
  if (layer.qNorm) {
    device_.norm(workspace_.q, layer.qNorm, nullptr, shape_.normEpsilon, tokens * shape_.numHeads, shape_.headDim,
                 workspace_.q);
    device_.norm(workspace_.k, layer.kNorm, nullptr, shape_.normEpsilon, tokens * shape_.numKvHeads, shape_.headDim,
                 workspace_.k);
  }
  if (shape_.learnedPositions) return;
  const float* const frequencies = shape_.inverseFrequencies.data();
  device_.rope(step.positions, frequencies, shape_.numHeads, shape_.headDim, shape_.qSize(), workspace_.q);
  device_.rope(step.positions, frequencies, shape_.numKvHeads, shape_.headDim, shape_.kvSize(), workspace_.k);
}

void Forward::storeNewKvRows(const Item& item, const BatchStep& step) {
  std::vector<KvRun> runs;
  for (const ActiveSlot& active : step.active) {
    if (kvCache_.attendedByCpu(active)) {
      runs.push_back({kvCache_.newAttendedRow(item, active), 1});
      continue;
    }
    kvCache_.forEachPage(active, active.numPast, active.numRows(), [&](int64_t page, int64_t before, int64_t count) {
      runs.push_back({kvCache_.devicePage(item, active, page) + before * kvCache_.rowBytes(), count});
    });
  }
  device_.storeKvRows(
      {kvCache_.dtype(), workspace_.k, workspace_.v, shape_.kvSize(), shape_.numKvHeads, shape_.headDim}, runs);
}

cpu::AttentionShape Forward::attentionShape() const {
  return {shape_.numHeads, shape_.numKvHeads,     shape_.headDim,      shape_.qSize(),
          shape_.qSize(),  shape_.slidingWindow, sparseValueFraction_};
}

// The pages of the sequences that are attended in one place, one after the other. Filled once; then addresses hold.
class Forward::AttendedPages {
 public:
  AttendedPages(const KvCache& kvCache, const BatchStep& step) : kvCache_(kvCache) {
    int64_t numPages = 0;
    for (const ActiveSlot& active : step.active) numPages += kvCache.numPages(active);
    pages_.reserve(static_cast<size_t>(numPages));
  }
  template <typename PageOf>
  cpu::KvView add(const ActiveSlot& active, PageOf&& pageOf) {
    const std::byte* const* const first = pages_.data() + pages_.size();
    for (int64_t page = 0; page < kvCache_.numPages(active); ++page) pages_.push_back(pageOf(page));
    return {first, kvCache_.pageRows(active), kvCache_.dtype()};
  }

 private:
  const KvCache& kvCache_;
  std::vector<const std::byte*> pages_;
};

void Forward::attendOnDevice(const Item& item, const BatchStep& step) {
  AttendedPages pages(kvCache_, step);
  std::vector<cpu::AttentionSequence> sequences;
  for (const ActiveSlot& active : step.active) {
    if (kvCache_.attendedByCpu(active)) continue;
    const auto view = pages.add(active, [&](int64_t page) { return kvCache_.devicePage(item, active, page); });
    const int64_t at = active.firstRow * shape_.qSize();
    sequences.push_back({view, active.numPast, active.numTokens, workspace_.q + at, workspace_.attended + at});
  }
  if (!sequences.empty()) device_.attention(attentionShape(), sequences);
}

// Sends q and the new KV row to the CPU, attends there, brings the output back, all beside what the device does after
// `projected`.
void Forward::attendOnCpu(const Item& item, const BatchStep& step, int64_t projected) {
  const int64_t qBytes = shape_.qSize() * kFloatBytes;
  std::vector<CopyPiece> toCpu, toDevice;
  AttendedPages pages(kvCache_, step);
  std::vector<cpu::AttentionSequence> sequences;
  float* q = cpuAttentionWorkspace_.as<float>();
  for (const ActiveSlot& active : step.active) {
    if (!kvCache_.attendedByCpu(active)) continue;
    float* const out = q + shape_.qSize();
    const int64_t at = active.firstRow * shape_.qSize();
    toCpu.push_back({reinterpret_cast<std::byte*>(q), reinterpret_cast<const std::byte*>(workspace_.q + at), qBytes});
    kvCache_.forEachPage(active, active.numPast, active.numRows(), [&](int64_t page, int64_t before, int64_t) {
      toCpu.push_back({kvCache_.hostPage(item, active, page) + before * kvCache_.rowBytes(),
                       kvCache_.newAttendedRow(item, active), kvCache_.rowBytes()});
    });
    const auto view = pages.add(active, [&](int64_t page) { return kvCache_.hostPage(item, active, page); });
    sequences.push_back({view, active.numPast, active.numTokens, q, out});
    toDevice.push_back(
        {reinterpret_cast<std::byte*>(workspace_.attended + at), reinterpret_cast<const std::byte*>(out), qBytes});
    q = out + shape_.qSize();
  }
  if (sequences.empty()) return;
  device_.await(projected);
  transfer_.copy(step.phase(), Link::kGpuToCpu, toCpu);
  {
    const auto timed = clock_.cpuAttention(step.phase());
    cpu::attention(pool_, attentionShape(), sequences);
  }
  transfer_.copy(step.phase(), Link::kCpuToGpu, toDevice);
}

void Forward::runMlp(const LayerView& view, const Mlp& mlp, const float* x, int64_t tokens, float* out) {
  float* const gate = shape_.gatedMlp ? workspace_.gate : nullptr;
  if (gate) {
    const cpu::Matmul ops[] = {product(view, mlp.gate, x, gate), product(view, mlp.up, x, workspace_.up)};
    device_.matmul(ops, tokens);
  } else {
    multiply(view, mlp.up, x, workspace_.up, tokens);
  }
  device_.activate(shape_.activation, gate, tokens * shape_.ffnSize, workspace_.up);
  multiply(view, mlp.down, workspace_.up, out, tokens);
}

std::vector<int32_t> Forward::head(const Item& item, const BatchStep& step, std::span<const cpu::TokenChoice> choices,
                                   const std::byte* buffer) {
  const auto timed = clock_.compute(step.phase());
  const auto rows = hiddenStates_.lastRows(item, step);
  const auto numRows = static_cast<int64_t>(rows.size());
  for (int64_t n = 0; n < numRows; ++n)
    device_.toFloat(shape_.dtype, rows[static_cast<size_t>(n)], 1, shape_.hiddenSize,
                    workspace_.hidden + n * shape_.hiddenSize);
  project({weights_.layer(item.layer), buffer}, numRows, workspace_.logits);
  return device_.chooseTokens(workspace_.logits, choices, shape_.vocabSize);
}

std::span<const float> Forward::logits(int64_t n) {
  return device_.view(workspace_.logits + n * shape_.vocabSize, shape_.vocabSize, hostScratch_);
}

// Logits of the first `tokens` hidden rows.
void Forward::project(const LayerView& view, int64_t tokens, float* logits) {
  const float* x = workspace_.hidden;
  if (layers_.head.norm.weight) {
    normalize(layers_.head.norm, x, workspace_.normed, tokens);
    x = workspace_.normed;
  }
  if (shape_.projectsEmbedding()) {
    multiply(view, layers_.head.projectOut, x, workspace_.embedding, tokens);
    x = workspace_.embedding;
  }
  multiply(view, layers_.head.head, x, logits, tokens);
}

// A few rows at a time: all logits of a prompt would need more memory than the layers do.
std::vector<float> Forward::scorePrompt(const Item& item, const BatchStep& step, const ActiveSlot& active,
                                        const std::byte* buffer) {
  const auto timed = clock_.compute(step.phase());
  const int64_t vocab = shape_.vocabSize;
  const int64_t rowsAtOnce = std::min(workspace_.areaFloats / vocab, maxTokens_);
  const int64_t last = active.lastRow();
  std::vector<float> scores(static_cast<size_t>(active.numTokens - 1));
  for (int64_t row = active.firstRow; row < last; row += rowsAtOnce) {
    const int64_t end = std::min(row + rowsAtOnce, last);
    readHidden(item, step, row, end - row);
    project({weights_.layer(item.layer), buffer}, end - row, workspace_.area);
    const auto logits = device_.view(workspace_.area, (end - row) * vocab, hostScratch_);
    pool_.parallelFor(end - row, 1, [&](int64_t from, int64_t to) {
      for (int64_t n = from; n < to; ++n)
        scores[static_cast<size_t>(row + n - active.firstRow)] =
            logProbability(logits.subspan(static_cast<size_t>(n * vocab), static_cast<size_t>(vocab)),
                           step.tokenIds[static_cast<size_t>(row + n + 1)]);
    });
  }
  return scores;
}

}  // namespace flexplan
