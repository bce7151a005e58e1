// Cuts each operation into independent pieces and spreads them over threads. No arithmetic here but rope's angles.
#include "cpu/ops.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <vector>

#include "core/aligned_buffer.h"
#include "core/error.h"
#include "core/parts.h"
#include "cpu/kernels.h"

namespace flexplan::cpu {
namespace {

// Weights read by one piece when few tokens share them: long enough to stream.
constexpr int64_t kStreamBytes = int64_t{128} << 10;
// Rows that are multiplied together when few tokens share them, on any ISA.
constexpr int64_t kRowStep = 16;
// Packed tokens at a time: they stay in the shared cache while all rows pass.
constexpr int64_t kPackedFloats = int64_t{2} << 20;
// Tiles of tokens that are worth packing weights for.
constexpr int64_t kSmallestTilePiece = 4;
// Pieces per thread that even out threads of unequal speed.
constexpr int64_t kPiecesPerThread = 4;
// Below this, a thread's share is not worth its wake-up.
constexpr int64_t kElementGrain = 16384;

int64_t ceilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t roundUp(int64_t a, int64_t b) { return ceilDivide(a, b) * b; }

// Scratch of the calling thread, kept between calls. Valid until the thread asks again for the same use.
enum class Use { kKernel, kTokens, kScores };
float* threadScratch(int64_t floats, Use use = Use::kKernel) {
  thread_local AlignedBuffer buffers[3];
  AlignedBuffer& buffer = buffers[static_cast<size_t>(use)];
  buffer.reserve(static_cast<size_t>(floats) * sizeof(float));
  return buffer.as<float>();
}

// Rows per parallel piece for work of `size` elements a row.
int64_t rowGrain(int64_t size) { return std::max<int64_t>(1, kElementGrain / std::max<int64_t>(1, size)); }

int64_t countRows(std::span<const Matmul> ops) {
  int64_t rows = 0;
  for (const Matmul& op : ops)
    for (int i = 0; i < op.weight.numPieces; ++i) rows += op.weight.pieces[i].rows;
  return rows;
}

int64_t countRowPieces(std::span<const Matmul> ops, int64_t rowsPerPiece) {
  int64_t count = 0;
  for (const Matmul& op : ops)
    for (int i = 0; i < op.weight.numPieces; ++i) count += ceilDivide(op.weight.pieces[i].rows, rowsPerPiece);
  return count;
}

// Tokens as the kernels want them, shared by the matmuls that read the same.
struct PackedTokens {
  const float* from;
  int64_t fromStride, tokens, cols;
  TokenLayout layout;
  const float* data;

  PackedTokens(const Matmul& op, int64_t numTokens)
      : from(op.x), fromStride(op.xStride), tokens(numTokens), cols(op.weight.cols),
        layout(kernels().tokenLayout(op.weight.dtype, numTokens, op.weight.cols, op.exactTokens)), data(op.x) {
    if (layout.asGiven()) layout.stride = fromStride;
  }

  bool operator==(const PackedTokens& other) const {
    return from == other.from && fromStride == other.fromStride && cols == other.cols &&
           layout.order == other.layout.order && layout.pairs == other.layout.pairs;
  }
  int64_t numTiles() const { return ceilDivide(tokens, layout.tileTokens); }
  int64_t floats() const { return layout.asGiven() ? 0 : numTiles() * layout.stride; }

  void pack(ThreadPool& pool, float* to) {
    if (layout.asGiven()) return;
    data = to;
    pool.parallelFor(numTiles(), rowGrain(layout.tileTokens * cols), [&](int64_t begin, int64_t end) {
      const int64_t token = begin * layout.tileTokens;
      kernels().packTokens(from + token * fromStride, fromStride, std::min(end * layout.tileTokens, tokens) - token,
                           cols, layout, to + begin * layout.stride);
    });
  }
};

int64_t mostColumns(std::span<const Matmul> ops) {
  int64_t cols = 1;
  for (const Matmul& op : ops) cols = std::max(cols, op.weight.cols);
  return cols;
}

// Columns of a packed row: whole blocks, or less than one.
int64_t packedColumns(int64_t cols) {
  constexpr int64_t kFewColumns = 128;
  return cols <= kBlockUnits ? roundUp(cols, kFewColumns) : roundUp(cols, kBlockUnits);
}

// The last tile of tokens is whole, too.
int64_t mostPackedFloats(int64_t tokens, int64_t cols) {
  constexpr int64_t kMostTileTokens = 14;
  const int64_t columns = packedColumns(cols);
  return std::min(tokens * columns, kPackedFloats + columns) + kMostTileTokens * columns;
}

// Some matmuls over tokens that are packed together.
class PackedMatmuls {
 public:
  PackedMatmuls(ThreadPool& pool, std::span<const Matmul> ops, int64_t tokens) : ops_(ops) {
    int64_t floats = 0;
    for (const Matmul& op : ops) {
      const PackedTokens wanted(op, tokens);
      const auto known = std::find(packed_.begin(), packed_.end(), wanted);
      packedOf_.push_back(static_cast<size_t>(known - packed_.begin()));
      if (known != packed_.end()) continue;
      packed_.push_back(wanted);
      floats += wanted.floats();
    }
    if (floats > static_cast<int64_t>(packed_.size()) * mostPackedFloats(tokens, mostColumns(ops)))
      throw Error(ErrorCode::kEngine, "expected packed tokens to fit their bound, got " + std::to_string(floats) +
                                          " floats; this is a fault of the engine");
    float* to = threadScratch(floats, Use::kTokens);
    for (PackedTokens& packed : packed_) {
      packed.pack(pool, to);
      to += packed.floats();
    }
  }

  std::span<const Matmul> ops() const { return ops_; }
  const PackedTokens& tokensOf(const Matmul& op) const {
    return packed_[packedOf_[static_cast<size_t>(&op - ops_.data())]];
  }
  // Whether weights are packed, too.
  bool inTiles() const {
    return std::any_of(packed_.begin(), packed_.end(),
                       [](const PackedTokens& p) { return p.layout.transposesWeights(); });
  }
  int64_t mostTiles() const {
    int64_t most = 1;
    for (const PackedTokens& p : packed_)
      if (p.layout.transposesWeights()) most = std::max(most, p.numTiles());
    return most;
  }

 private:
  std::span<const Matmul> ops_;
  std::vector<PackedTokens> packed_;
  std::vector<size_t> packedOf_;
};

// How a set of matmuls is cut: pieces of rowsPerPiece rows (of one WeightPiece) by one of numTokenPieces equal runs of
// tiles.
struct MatmulCut {
  int64_t rowsPerPiece, numRowPieces, numTokenPieces;
};

MatmulCut cutMatmul(const PackedMatmuls& matmuls, int64_t numThreads) {
  const std::span<const Matmul> ops = matmuls.ops();
  const int64_t rows = countRows(ops), wanted = kPiecesPerThread * numThreads;
  MatmulCut cut{kPanelRows, 0, 1};
  if (!matmuls.inTiles()) {
    int64_t bytes = 1;
    for (const Matmul& op : ops)
      bytes = std::max(bytes, static_cast<int64_t>(rowBytes(op.weight.dtype, op.weight.cols)));
    cut.rowsPerPiece =
        std::clamp(roundUp(std::min(kStreamBytes / bytes, rows / wanted), kRowStep), kRowStep, kPanelRows);
  } else if (rows < wanted * kPanelRows) {
    cut.rowsPerPiece = kPanelRows / 2;
  }
  cut.numRowPieces = countRowPieces(ops, cut.rowsPerPiece);
  const int64_t lacking = ceilDivide(2 * wanted, std::max<int64_t>(1, cut.numRowPieces));
  cut.numTokenPieces = std::clamp<int64_t>(matmuls.mostTiles() / kSmallestTilePiece, 1, lacking);
  return cut;
}

// The rows of row piece `index`.
struct RowPiece {
  const Matmul* op;
  const WeightPiece* piece;
  int64_t firstRow;    // of the matmul
  int64_t pieceBegin;  // of the WeightPiece
  int64_t rows;
};

RowPiece findRowPiece(std::span<const Matmul> ops, int64_t rowsPerPiece, int64_t index) {
  for (const Matmul& op : ops) {
    int64_t row = 0;
    for (int i = 0; i < op.weight.numPieces; ++i) {
      const WeightPiece& piece = op.weight.pieces[i];
      const int64_t count = ceilDivide(piece.rows, rowsPerPiece);
      if (index < count) {
        const int64_t begin = index * rowsPerPiece;
        return {&op, &piece, row + begin, begin, std::min(rowsPerPiece, piece.rows - begin)};
      }
      index -= count;
      row += piece.rows;
    }
  }
  return {};
}

// Tiles [beginTile, endTile) of the tokens.
void multiplyPiece(const RowPiece& rows, const PackedTokens& tokens, int64_t beginTile, int64_t endTile) {
  const Matmul& op = *rows.op;
  const auto stride = static_cast<int64_t>(rowBytes(op.weight.dtype, op.weight.cols));
  const int64_t token = beginTile * tokens.layout.tileTokens;
  Product product{};
  product.weight = {op.weight.dtype, rows.piece->data + rows.pieceBegin * stride, stride, rows.rows, op.weight.cols};
  product.bias = op.bias != nullptr ? op.bias + rows.firstRow : nullptr;
  product.x = tokens.data + beginTile * tokens.layout.stride;
  product.layout = tokens.layout;
  product.tokens = std::min(endTile * tokens.layout.tileTokens, tokens.tokens) - token;
  product.out = op.out + token * op.outStride + rows.firstRow;
  product.outStride = op.outStride;
  product.panel = threadScratch(kPanelFloats);
  kernels().multiply(product);
}

// Tokens that are packed at a time.
int64_t tokensAtOnce(std::span<const Matmul> ops, int64_t tokens) {
  return ceilDivide(tokens, ceilDivide(tokens * packedColumns(mostColumns(ops)), kPackedFloats));
}

void multiplyTogether(ThreadPool& pool, std::span<const Matmul> ops, int64_t tokens) {
  const PackedMatmuls matmuls(pool, ops, tokens);
  const MatmulCut cut = cutMatmul(matmuls, pool.numThreads());
  pool.parallelFor(cut.numRowPieces * cut.numTokenPieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const RowPiece rows = findRowPiece(ops, cut.rowsPerPiece, i % cut.numRowPieces);
      const PackedTokens& packed = matmuls.tokensOf(*rows.op);
      const int64_t piece = i / cut.numRowPieces, tiles = packed.numTiles();
      const int64_t beginTile = piece * tiles / cut.numTokenPieces, endTile = (piece + 1) * tiles / cut.numTokenPieces;
      if (beginTile < endTile) multiplyPiece(rows, packed, beginTile, endTile);
    }
  });
}

// How attention is cut: prefill by KV head and query block, decode by KV heads that are read together.
struct AttentionCut {
  int64_t kvHeadsPerPiece, queriesPerPiece;
};

// Query rows that share a converted chunk of K and V.
constexpr int64_t kQueryRows = 64;
// Fewer when they keep the scores of all positions.
constexpr int64_t kSparseQueryRows = 8;

AttentionCut cutAttention(const AttentionShape& shape, std::span<const AttentionSequence> sequences,
                          int64_t numThreads) {
  const bool decode = std::all_of(sequences.begin(), sequences.end(), [](const auto& s) { return s.numQueries <= 1; });
  const int64_t rows = shape.sparseValueFraction < 1 ? kSparseQueryRows : kQueryRows;
  if (!decode) return {1, std::max<int64_t>(1, rows * shape.numKvHeads / shape.numHeads)};
  // Whole KV rows are contiguous; heads are taken apart only when there are too few sequences to keep all threads busy.
  const int64_t wanted =
      ceilDivide(kPiecesPerThread * numThreads, std::max<int64_t>(1, static_cast<int64_t>(sequences.size())));
  return {ceilDivide(shape.numKvHeads, std::min(wanted, shape.numKvHeads)), 1};
}

// Units of sparse attention that keep their scores at once: so many, in so much memory, but one at least.
constexpr int64_t kMostSparseUnits = 128;
constexpr int64_t kSparseScoreFloats = int64_t{16} << 20;

// Of one unit: the scores of its query rows, and the order of one row's.
int64_t sparseUnitFloats(int64_t numHeads, int64_t numKvHeads, int64_t positions) {
  return (std::max(kSparseQueryRows, numHeads / numKvHeads) + 1) * roundUp(positions, kAttentionChunk);
}

int64_t headBytes(DataType dtype, int64_t headDim) { return static_cast<int64_t>(rowBytes(dtype, headDim)); }

// What the threads attend to one by one.
class AttentionUnits {
 public:
  AttentionUnits(const AttentionShape& shape, std::span<const AttentionSequence> sequences, AttentionCut cut)
      : shape_(shape), sequences_(sequences), cut_(cut),
        headPieces_(ceilDivide(shape.numKvHeads, cut.kvHeadsPerPiece)) {
    for (const AttentionSequence& s : sequences)
      starts_.push_back(starts_.back() + headPieces_ * ceilDivide(s.numQueries, cut.queriesPerPiece));
  }

  int64_t count() const { return starts_.back(); }

  AttentionUnit operator[](int64_t i) const {
    const auto next = std::upper_bound(starts_.begin(), starts_.end(), i);
    const AttentionSequence& sequence = sequences_[static_cast<size_t>(next - starts_.begin() - 1)];
    const int64_t local = i - *(next - 1);
    // The last queries have the longest past: they come first.
    const int64_t blocks = ceilDivide(sequence.numQueries, cut_.queriesPerPiece);
    AttentionUnit unit{};
    unit.shape = shape_;
    unit.sequence = sequence;
    unit.headBytes = headBytes(sequence.kv.dtype, shape_.headDim);
    unit.rowBytes = 2 * shape_.numKvHeads * unit.headBytes;
    unit.kvHeadBegin = local % headPieces_ * cut_.kvHeadsPerPiece;
    unit.kvHeadEnd = std::min(unit.kvHeadBegin + cut_.kvHeadsPerPiece, shape_.numKvHeads);
    unit.queryBegin = (blocks - 1 - local / headPieces_) * cut_.queriesPerPiece;
    unit.queryEnd = std::min(unit.queryBegin + cut_.queriesPerPiece, sequence.numQueries);
    return unit;
  }

 private:
  const AttentionShape& shape_;
  const std::span<const AttentionSequence> sequences_;
  const AttentionCut cut_;
  const int64_t headPieces_;
  std::vector<int64_t> starts_{0};  // first unit of each sequence
};

void attendUnit(AttentionUnit unit) {
  unit.scratch = threadScratch(kernels().attentionScratchFloats(unit));
  kernels().attend(unit);
}

// Scores take more memory than a thread should keep: they are the caller's, for as many units as are attended at once.
void attendSparsely(ThreadPool& pool, const AttentionShape& shape, std::span<const AttentionSequence> sequences,
                    const AttentionUnits& units) {
  int64_t positions = 1;
  for (const AttentionSequence& s : sequences) positions = std::max(positions, s.numPast + s.numQueries);
  const int64_t unitFloats = sparseUnitFloats(shape.numHeads, shape.numKvHeads, positions);
  const int64_t atOnce =
      std::min<int64_t>({pool.numThreads(), kMostSparseUnits, std::max<int64_t>(1, kSparseScoreFloats / unitFloats)});
  float* const scores = threadScratch(atOnce * unitFloats, Use::kScores);
  std::atomic<int64_t> next = 0;
  pool.parallelFor(atOnce, 1, [&](int64_t begin, int64_t) {
    for (int64_t i = next++; i < units.count(); i = next++) {
      AttentionUnit unit = units[i];
      unit.scores = scores + begin * unitFloats;
      attendUnit(unit);
    }
  });
}

}  // namespace

int64_t matmulScratchBytes(int64_t tokens, int64_t cols) {
  return mostPackedFloats(tokens, cols) * static_cast<int64_t>(sizeof(float));
}

void matmul(ThreadPool& pool, std::span<const Matmul> ops, int64_t tokens) {
  if (tokens <= 0) return;
  const int64_t atOnce = tokensAtOnce(ops, tokens);
  std::vector<Matmul> part(ops.begin(), ops.end());
  for (int64_t token = 0; token < tokens; token += atOnce) {
    multiplyTogether(pool, part, std::min(atOnce, tokens - token));
    for (Matmul& op : part) {
      op.x += atOnce * op.xStride;
      op.out += atOnce * op.outStride;
    }
  }
}

void toFloat(ThreadPool& pool, DataType from, const std::byte* rows, int64_t numRows, int64_t cols, float* out) {
  const size_t stride = rowBytes(from, cols);
  pool.parallelFor(numRows, rowGrain(cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      kernels().toFloat(from, rows + static_cast<size_t>(row) * stride, cols, out + row * cols);
  });
}

void fromFloat(ThreadPool& pool, DataType to, const float* rows, int64_t numRows, int64_t cols, std::byte* out) {
  const size_t stride = rowBytes(to, cols);
  pool.parallelFor(numRows, rowGrain(cols), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      kernels().fromFloat(to, rows + row * cols, cols, out + static_cast<size_t>(row) * stride);
  });
}

void fitInt4(ThreadPool& pool, const float* rows, int64_t numRows, int64_t cols, std::byte* out) {
  const size_t stride = rowBytes(DataType::kInt4, cols);
  const bool whole = cols % kInt4GroupSize == 0;
  pool.parallelFor(numRows, rowGrain(cols), [&](int64_t begin, int64_t end) {
    // Rows of whole groups are one long row, which fills more lanes.
    const int64_t step = whole ? end - begin : 1;
    for (int64_t row = begin; row < end; row += step)
      kernels().fitInt4(rows + row * cols, step * cols, out + static_cast<size_t>(row) * stride);
  });
}

void layerNorm(ThreadPool& pool, const float* x, const float* weight, const float* bias, float epsilon, int64_t tokens,
               int64_t size, float* y) {
  pool.parallelFor(tokens, rowGrain(size), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) kernels().layerNorm(x + t * size, weight, bias, epsilon, size, y + t * size);
  });
}

void rmsNorm(ThreadPool& pool, const float* x, const float* weight, float epsilon, int64_t tokens, int64_t size,
             float* y) {
  pool.parallelFor(tokens, rowGrain(size), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) kernels().rmsNorm(x + t * size, weight, epsilon, size, y + t * size);
  });
}

void add(ThreadPool& pool, const float* x, int64_t count, float* y) {
  pool.parallelFor(count, kElementGrain,
                   [&](int64_t begin, int64_t end) { kernels().add(x + begin, end - begin, y + begin); });
}

void activate(ThreadPool& pool, Activation f, const float* gate, int64_t count, float* x) {
  pool.parallelFor(count, kElementGrain, [&](int64_t begin, int64_t end) {
    kernels().activate(f, gate != nullptr ? gate + begin : nullptr, end - begin, x + begin);
  });
}

void rope(ThreadPool& pool, const int32_t* positions, const float* inverseFrequencies, int64_t tokens, int64_t numHeads,
          int64_t headDim, int64_t xStride, float* x) {
  const int64_t half = headDim / 2;
  pool.parallelFor(tokens, rowGrain(numHeads * headDim), [&](int64_t begin, int64_t end) {
    float* cosines = threadScratch(2 * half);
    float* sines = cosines + half;
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t d = 0; d < half; ++d) {
        const float angle = static_cast<float>(positions[t]) * inverseFrequencies[d];
        cosines[d] = std::cos(angle);
        sines[d] = std::sin(angle);
      }
      kernels().rope(cosines, sines, numHeads, headDim, x + t * xStride);
    }
  });
}

void attention(ThreadPool& pool, const AttentionShape& shape, std::span<const AttentionSequence> sequences) {
  const AttentionUnits units(shape, sequences, cutAttention(shape, sequences, pool.numThreads()));
  if (shape.sparseValueFraction < 1) return attendSparsely(pool, shape, sequences, units);
  pool.parallelFor(units.count(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) attendUnit(units[i]);
  });
}

int64_t sparseScoreBytes(int64_t numHeads, int64_t numKvHeads, int64_t positions) {
  const int64_t unit = sparseUnitFloats(numHeads, numKvHeads, positions);
  return std::min(kMostSparseUnits * unit, std::max(kSparseScoreFloats, unit)) * static_cast<int64_t>(sizeof(float));
}

size_t kvRowBytes(DataType dtype, int64_t numKvHeads, int64_t headDim) {
  return static_cast<size_t>(2 * numKvHeads * headBytes(dtype, headDim));
}

void storeKvRows(ThreadPool& pool, const KvRows& from, std::span<const KvRun> runs) {
  const int64_t headStride = headBytes(from.dtype, from.headDim), bytes = 2 * from.numKvHeads * headStride;
  int64_t tokens = 0;
  for (const KvRun& run : runs) tokens += run.tokens;
  const auto store = [&](int64_t token, std::byte* out) {
    for (const float* values : {from.k + token * from.stride, from.v + token * from.stride})
      for (int64_t head = 0; head < from.numKvHeads; ++head, out += headStride)
        kernels().fromFloat(from.dtype, values + head * from.headDim, from.headDim, out);
  };
  pool.parallelFor(tokens, rowGrain(2 * from.numKvHeads * from.headDim), [&](int64_t begin, int64_t end) {
    forEachPart(runs, begin, end, [](const KvRun& run) { return run.tokens; },
                [&](const KvRun& run, int64_t firstToken, int64_t first, int64_t last) {
                  for (int64_t row = first; row < last; ++row) store(firstToken + row, run.rows + row * bytes);
                });
  });
}

}  // namespace flexplan::cpu
