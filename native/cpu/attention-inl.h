// Attention, part of kernels-inl.h. Online softmax over chunks of positions: for each chunk, scores of all query rows
// that share the KV head, then the new maximum m' and, for sum and output alike,
//   total = total * e^(m - m') + sum over the chunk of e^(s - m') * (1 or v)
// Chunk boundaries, and the order of positions inside, are fixed, and a position outside a query's range is never
// added, so a query's bits do not depend on its neighbours.

// Up to so many query rows the products with K are those of few tokens.
constexpr int64_t kMostFewQueries = 8;
// Positions that a head attends to before the next one has its turn.
constexpr int64_t kTurnPositions = 16;

// Positions [begin, end) of a chunk, or of the sequence.
struct Range {
  int64_t begin, end;
};

// Positions that query `query` of the sequence attends to.
inline Range attendedPositions(const AttentionUnit& u, int64_t query) {
  const int64_t own = u.sequence.numPast + query;
  const bool windowed = u.shape.slidingWindow > 0;
  return {windowed ? larger(0, own - u.shape.slidingWindow + 1) : 0, own + 1};
}

// All that the unit's queries attend to, from the beginning of a chunk.
inline Range unitPositions(const AttentionUnit& u) {
  return {attendedPositions(u, u.queryBegin).begin / kAttentionChunk * kAttentionChunk,
          attendedPositions(u, u.queryEnd - 1).end};
}

inline bool isSparse(const AttentionUnit& u) { return u.shape.sparseValueFraction < 1; }

// The memory of AttentionUnit::scratch and scores. A "row" is one query of one head; rows of a KV head are consecutive.
struct AttentionScratch {
  int64_t dim;  // headDim, padded so that whole groups can be written
  int64_t headsPerKvHead, rowsPerKvHead;
  float *queries, *outputs;  // [kvHeads, rowsPerKvHead, dim]
  float *maxima, *sums;      // [kvHeads, rowsPerKvHead]
  int64_t scoreStride;       // kAttentionChunk; sparse: whole chunks that hold all positions of the unit
  float* scores;             // [kvHeads, rowsPerKvHead, scoreStride] (sparse: of one head); becomes probabilities
  uint32_t* keys;            // sparse: [scoreStride], see orderedKey
  float* values;             // [kAttentionChunk, dim]
  TokenLayout layout;        // of the queries of a KV head
  float* packed;             // those, where they are not multiplied as they lie
  float* panel;
  int64_t floats;

  AttentionScratch(const AttentionUnit& u, float* memory)
      : dim(roundUp(u.shape.headDim, kGroup)),
        headsPerKvHead(u.shape.numHeads / u.shape.numKvHeads),
        rowsPerKvHead((u.queryEnd - u.queryBegin) * headsPerKvHead),
        scoreStride(isSparse(u) ? roundUp(unitPositions(u).end - unitPositions(u).begin, kAttentionChunk)
                                : kAttentionChunk),
        layout(layoutOf<FloatUnits>(rowsPerKvHead, u.shape.headDim, kMostFewQueries)) {
    const int64_t kvHeads = u.kvHeadEnd - u.kvHeadBegin;
    const int64_t rows = kvHeads * rowsPerKvHead;
    if (!tiled()) layout.stride = dim;
    int64_t used = 0;
    const auto take = [&](int64_t count) {
      float* start = memory != nullptr ? memory + used : nullptr;
      used += roundUp(count, 16);
      return start;
    };
    queries = take(rows * dim);
    outputs = take(rows * dim);
    maxima = take(rows);
    sums = take(rows);
    scores = isSparse(u) ? u.scores : take(rows * scoreStride);
    keys = isSparse(u) ? reinterpret_cast<uint32_t*>(scores + rowsPerKvHead * scoreStride) : nullptr;
    values = take(kAttentionChunk * dim);
    panel = take(kPanelFloats);
    packed = take(tiled() ? kvHeads * packedFloats() : 0);
    floats = used;
  }

  bool tiled() const { return layout.order != TokenOrder::kRows; }
  int64_t packedFloats() const { return (rowsPerKvHead + layout.tileTokens - 1) / layout.tileTokens * layout.stride; }
};

int64_t attentionScratchFloats(const AttentionUnit& u) { return AttentionScratch(u, nullptr).floats; }

inline bool isOneQuery(const AttentionUnit& u) { return u.queryEnd - u.queryBegin == 1; }

// The part of a row's positions that lies in the chunk, relative to its begin.
inline Range attendedInChunk(const AttentionUnit& u, const AttentionScratch& s, int64_t row, Range chunk) {
  // A division takes as long as some positions do.
  const int64_t query = isOneQuery(u) ? u.queryBegin : u.queryBegin + row / s.headsPerKvHead;
  const Range positions = attendedPositions(u, query);
  return {larger(positions.begin, chunk.begin) - chunk.begin, smaller(positions.end, chunk.end) - chunk.begin};
}

// Where the first query row of head h, query t lies (scaled copies, padded with zeros).
inline int64_t rowOf(const AttentionUnit& u, const AttentionScratch& s, int64_t query, int64_t head) {
  const int64_t kvHead = head / s.headsPerKvHead - u.kvHeadBegin;
  return kvHead * s.rowsPerKvHead + (query - u.queryBegin) * s.headsPerKvHead + head % s.headsPerKvHead;
}

template <typename Body>
inline void forEachRow(const AttentionUnit& u, const AttentionScratch& s, Body&& body) {
  for (int64_t query = u.queryBegin; query < u.queryEnd; ++query)
    for (int64_t head = u.kvHeadBegin * s.headsPerKvHead; head < u.kvHeadEnd * s.headsPerKvHead; ++head)
      body(query, head, rowOf(u, s, query, head));
}

void startAttention(const AttentionUnit& u, const AttentionScratch& s) {
  const int64_t headDim = u.shape.headDim;
  const Vec scale = set1(1.0f / __builtin_sqrtf(static_cast<float>(headDim)));
  forEachRow(u, s, [&](int64_t query, int64_t head, int64_t row) {
    const float* q = u.sequence.q + query * u.shape.qStride + head * headDim;
    for (int64_t d = 0; d < s.dim; d += kLanes) {
      const int64_t n = headDim - d;
      store(s.queries + row * s.dim + d, n > 0 ? mul(loadUpTo(q + d, n), scale) : zero());
      store(s.outputs + row * s.dim + d, zero());
    }
    s.maxima[row] = -__builtin_inff();
    s.sums[row] = 0;
  });
  for (int64_t head = 0; s.tiled() && head < u.kvHeadEnd - u.kvHeadBegin; ++head)
    packUnits<FloatUnits>(s.queries + head * s.rowsPerKvHead * s.dim, s.dim, s.rowsPerKvHead, headDim, s.layout,
                          s.packed + head * s.packedFloats());
}

void finishAttention(const AttentionUnit& u, const AttentionScratch& s) {
  forEachRow(u, s, [&](int64_t query, int64_t head, int64_t row) {
    float* out = u.sequence.out + query * u.shape.outStride + head * u.shape.headDim;
    const Vec sum = set1(s.sums[row]);
    for (int64_t d = 0; d < u.shape.headDim; d += kLanes)
      storeUpTo(out + d, u.shape.headDim - d, div(load(s.outputs + row * s.dim + d), sum));
  });
}

// Turns one row's scores of a chunk into e^(s - m') (0 outside the range) and rescales what the row has summed so far.
void softmaxStep(float* scores, Range range, float& maximum, float& sum, float* output, int64_t dim) {
  const float nothing = -__builtin_inff();
  for (int64_t i = 0; i < range.begin; ++i) scores[i] = nothing;
  for (int64_t i = range.end; i < kAttentionChunk; ++i) scores[i] = nothing;
  Vec highest = set1(maximum);
  for (int64_t i = 0; i < kAttentionChunk; i += kLanes) highest = max(highest, load(scores + i));
  const float newMaximum = maxLane(highest);
  for (int64_t i = 0; i < kAttentionChunk; i += kLanes)
    store(scores + i, exponential(sub(load(scores + i), set1(newMaximum))));
  for (int64_t i = 0; i < range.begin; ++i) scores[i] = 0;
  for (int64_t i = range.end; i < kAttentionChunk; ++i) scores[i] = 0;
  const Vec shrink = exponential(set1(maximum - newMaximum));
  if (newMaximum != maximum)
    for (int64_t d = 0; d < dim; d += kLanes) store(output + d, mul(load(output + d), shrink));
  sum = sum * shrink[0] + sumOf(scores, kAttentionChunk);
  maximum = newMaximum;
}

// Rows of V of one KV head and chunk.
struct ValueRows {
  const std::byte* data;
  int64_t stride;
  int64_t ahead = 0;  // bytes to what comes next from memory
};

// Adds probability times V to `kTokens` output rows, for kVecs vectors of columns. Columns beyond the row's end (tail >
// 0: columns left) are read as zero.
template <DataType kType, int kTokens, int kVecs>
inline void addValueColumns(ValueRows v, int64_t tail, Range range, const float* probabilities, float* output,
                            int64_t dim) {
  Vec acc[kTokens][kVecs];
  for (int t = 0; t < kTokens; ++t)
    for (int i = 0; i < kVecs; ++i) acc[t][i] = load(output + t * dim + i * kLanes);
  for (int64_t p = range.begin; p < range.end; ++p) {
    const std::byte* row = v.data + p * v.stride;
    Vec w[kGroupVecs];
    constexpr int64_t kBytes = kVecs * groupBytes<kType>() / kGroupVecs;
    for (int64_t byte = 0; v.ahead > 0 && byte < kBytes; byte += 64) __builtin_prefetch(row + byte + v.ahead, 0, 2);
    if constexpr (kVecs == 1 && kType != DataType::kInt4) {
      w[0] = decode<kType>(row);
    } else if (tail > 0) {
      decodeTail<FloatUnits, kType>(row, tail, w);
    } else {
      decodeGroup<kType>(row, w);
    }
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const Vec probability = set1(probabilities[t * kAttentionChunk + p]);
#pragma GCC unroll 16
      for (int i = 0; i < kVecs; ++i) acc[t][i] = fma(probability, w[i], acc[t][i]);
    }
  }
  for (int t = 0; t < kTokens; ++t)
    for (int i = 0; i < kVecs; ++i) store(output + t * dim + i * kLanes, acc[t][i]);
}

// Whole groups of columns first, then whole vectors, then what is left. kInt4 rows always end with a whole group.
template <DataType kType, int kTokens>
void addValues(ValueRows v, int64_t headDim, Range range, const float* probabilities, float* outputs, int64_t dim) {
  if (range.begin >= range.end) return;
  constexpr bool kGroupsOnly = kType == DataType::kInt4;
  constexpr int64_t kVecBytes = groupBytes<kType>() / kGroupVecs;
  int64_t col = 0;
  const auto add = [&]<int kVecs>(int64_t tail) {
    addValueColumns<kType, kTokens, kVecs>(v, tail, range, probabilities, outputs + col, dim);
    v.data += kGroupsOnly ? groupBytes<kType>() : kVecs * kVecBytes;
    col += kVecs * kLanes;
  };
  while (kGroupsOnly ? col < headDim : col + kGroup <= headDim) add.template operator()<kGroupVecs>(0);
  while (col + kLanes <= headDim) add.template operator()<1>(0);
  if (col < headDim) add.template operator()<kGroupVecs>(headDim - col);
}

inline Range overlap(Range a, Range b) {
  const int64_t begin = larger(a.begin, b.begin);
  return {begin, larger(begin, smaller(a.end, b.end))};
}

// Probabilities times V for all rows of a KV head, of the positions `part` of the chunk. Rows go through registers
// kFewTokens at a time over the positions that all of them attend to; what a row has before and after those is added
// alone, in order.
template <DataType kType>
void addAllValues(const AttentionUnit& u, const AttentionScratch& s, ValueRows v, Range chunk, Range part,
                  const float* probabilities, float* outputs) {
  const int64_t headDim = u.shape.headDim;
  const bool alike = isOneQuery(u);
  const auto attended = [&](int64_t row) { return overlap(attendedInChunk(u, s, row, chunk), part); };
  for (int64_t row = 0; row < s.rowsPerKvHead; row += kFewTokens) {
    const int64_t rows = smaller(kFewTokens, s.rowsPerKvHead - row);
    // Ranges grow with the query, so the first row ends first and the last begins last.
    const Range first = attended(row), last = alike ? first : attended(row + rows - 1);
    const Range common{last.begin, larger(last.begin, first.end)};
    const auto alone = [&](bool before) {
      for (int64_t r = row; r < row + rows; ++r) {
        const Range own = attended(r);
        const Range rest = before ? Range{own.begin, smaller(own.end, common.begin)}
                                  : Range{larger(own.begin, common.end), own.end};
        addValues<kType, 1>(v, headDim, rest, probabilities + r * kAttentionChunk, outputs + r * s.dim, s.dim);
      }
    };
    if (!alike) alone(true);
    withTokens<kFewTokens>(rows, [&]<int kTokens>() {
      addValues<kType, kTokens>(v, headDim, common, probabilities + row * kAttentionChunk, outputs + row * s.dim,
                                s.dim);
    });
    if (!alike) alone(false);
  }
}

void addChunkValues(const AttentionUnit& u, const AttentionScratch& s, ValueRows v, Range chunk, Range part,
                    const float* probabilities, float* outputs) {
  withType(u.sequence.kv.dtype, [&]<DataType kType>() {
    if (kType == DataType::kFloat32 || s.rowsPerKvHead <= kFewTokens)
      return addAllValues<kType>(u, s, v, chunk, part, probabilities, outputs);
    for (int64_t p = part.begin; p < part.end; ++p)
      decodeRow<kType>(v.data + p * v.stride, u.shape.headDim, s.values + p * s.dim);
    const ValueRows converted{reinterpret_cast<const std::byte*>(s.values),
                              s.dim * static_cast<int64_t>(sizeof(float))};
    addAllValues<DataType::kFloat32>(u, s, converted, chunk, part, probabilities, outputs);
  });
}

// Brings one head's slice of some positions into the L2 cache, when so few rows use it that memory is the limit.
// Addresses need not be readable.
inline void prefetchRows(const std::byte* rows, int64_t positions, const AttentionUnit& u) {
  constexpr int64_t kMemoryBoundRows = 8;
  if ((u.queryEnd - u.queryBegin) * u.shape.numHeads > kMemoryBoundRows * u.shape.numKvHeads) return;
  for (int64_t p = 0; p < positions; ++p)
    for (int64_t byte = 0; byte < u.headBytes; byte += 64) __builtin_prefetch(rows + p * u.rowBytes + byte, 0, 2);
}

// The KV row of a position. The rows of a chunk lie in one page.
inline const std::byte* kvRow(const AttentionUnit& u, int64_t position) {
  const KvView& kv = u.sequence.kv;
  return kv.pages[position / kv.pageRows] + position % kv.pageRows * u.rowBytes;
}

// `count` KV rows in one page.
struct RowRun {
  const std::byte* first;
  int64_t count;
};

// Scores of all query rows of a KV head, those of a row `stride` apart.
void scoreRows(const AttentionUnit& u, const AttentionScratch& s, int64_t kvHead, RowRun rows, float* scores,
               int64_t stride) {
  const int64_t head = kvHead - u.kvHeadBegin;
  const float* queries = s.tiled() ? s.packed + head * s.packedFloats() : s.queries + head * s.rowsPerKvHead * s.dim;
  const RowBlock keys{u.sequence.kv.dtype, rows.first + kvHead * u.headBytes, u.rowBytes, rows.count, u.shape.headDim};
  const Product product{keys,   nullptr, queries, s.layout, s.rowsPerKvHead,
                        scores, stride,  s.panel, kTurnPositions * u.rowBytes};
  withType(u.sequence.kv.dtype, [&]<DataType kType>() { multiplyUnits<FloatUnits, kType>(product); });
}

// The V of one head in KV rows.
inline ValueRows valuesOf(const AttentionUnit& u, int64_t kvHead, const std::byte* rows) {
  return {rows + (u.shape.numKvHeads + kvHead) * u.headBytes, u.rowBytes, kTurnPositions * u.rowBytes};
}

// Calls use(kvHead, part) for all heads and positions of a chunk. Few query rows: memory is the limit, and as KV rows
// hold all heads, these take turns after a few positions: memory is read nearly in order.
template <typename Use>
inline void inTurns(const AttentionUnit& u, const AttentionScratch& s, Range chunk, Use&& use) {
  const int64_t positions = chunk.end - chunk.begin;
  const int64_t turn = s.rowsPerKvHead <= kMostFewQueries ? kTurnPositions : positions;
  for (int64_t p = 0; p < positions; p += turn)
    for (int64_t kvHead = u.kvHeadBegin; kvHead < u.kvHeadEnd; ++kvHead)
      use(kvHead, Range{p, smaller(p + turn, positions)});
}

void attendChunk(const AttentionUnit& u, const AttentionScratch& s, Range chunk) {
  const std::byte* const kv = kvRow(u, chunk.begin);
  const auto firstRow = [&](int64_t kvHead) { return (kvHead - u.kvHeadBegin) * s.rowsPerKvHead; };
  inTurns(u, s, chunk, [&](int64_t kvHead, Range part) {
    scoreRows(u, s, kvHead, {kv + part.begin * u.rowBytes, part.end - part.begin},
              s.scores + firstRow(kvHead) * kAttentionChunk + part.begin, kAttentionChunk);
  });
  for (int64_t kvHead = u.kvHeadBegin; kvHead < u.kvHeadEnd; ++kvHead)
    for (int64_t r = 0; r < s.rowsPerKvHead; ++r) {
      const int64_t row = firstRow(kvHead) + r;
      const Range range = attendedInChunk(u, s, r, chunk);
      if (range.begin < range.end)
        softmaxStep(s.scores + row * kAttentionChunk, range, s.maxima[row], s.sums[row], s.outputs + row * s.dim,
                    s.dim);
    }
  inTurns(u, s, chunk, [&](int64_t kvHead, Range part) {
    const int64_t row = firstRow(kvHead);
    addChunkValues(u, s, valuesOf(u, kvHead, kv), chunk, part, s.scores + row * kAttentionChunk,
                   s.outputs + row * s.dim);
  });
}

#include "cpu/attention_sparse-inl.h"

void attend(const AttentionUnit& u) {
  const AttentionScratch s(u, u.scratch);
  startAttention(u, s);
  const Range all = unitPositions(u);
  if (isSparse(u)) {
    for (int64_t kvHead = u.kvHeadBegin; kvHead < u.kvHeadEnd; ++kvHead) attendSparsely(u, s, kvHead, all);
    return finishAttention(u, s);
  }
  for (int64_t p = all.begin; p < all.end; p += kAttentionChunk)
    attendChunk(u, s, {p, smaller(p + kAttentionChunk, all.end)});
  finishAttention(u, s);
}
