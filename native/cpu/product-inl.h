// Products of weights and tokens, part of kernels-inl.h.
//
// A unit is what one 32-bit lane holds: one fp32 column, or a pair of bf16 columns. The order of additions is the same
// on both ways below: in a block of kBlockUnits units, lane l chains the products of units l, l + kLanes, ...; the
// lanes' chains are added as sumLanes says; then the block is added to the output. Few tokens: lanes are units, and
// weights are multiplied as they lie. Many tokens: lanes are rows, which costs least per multiply-add, but needs
// weights and tokens transposed.

constexpr int64_t kBlockSteps = kBlockUnits / kLanes;

// ---- Few tokens -----------------------------------------------------------------------------------------------------

// Up to so many tokens are multiplied as rows: memory is the limit.
constexpr int64_t kMostRows = 4;

// The chains of kTokens x kRows output elements, in registers.
template <typename Units, DataType kType, int kTokens, int kRows, TokenOrder kOrder>
struct Chains {
  static constexpr int kCount = kTokens * kRows;
  static constexpr int kSums = (kCount + kLanes - 1) / kLanes;  // vectors that hold one sum of each
  static constexpr int kVecs = Units::kVecs;
  const std::byte* rows[kRows];
  const float* x[kOrder == TokenOrder::kRows ? kTokens : 1];
  int64_t ahead;    // bytes to what comes next from memory
  Vec acc[kCount];  // [kTokens][kRows]

  // Rows and tokens that do not exist repeat the last one. tokens: the first tile's, or row's.
  Chains(const Product& p, int64_t row, const float* tokens, int64_t bytesAhead) : ahead(bytesAhead) {
    for (int r = 0; r < kRows; ++r) rows[r] = p.weight.data + smaller(row + r, p.weight.rows - 1) * p.weight.stride;
    x[0] = tokens;
    if constexpr (kOrder == TokenOrder::kRows)
      for (int t = 1; t < kTokens; ++t) x[t] = tokens + smaller(t, p.tokens - 1) * p.layout.stride;
  }

  // Units [vec * kLanes, ...) of a token.
  const float* unitsOf(int t, int64_t vec) const {
    if constexpr (kOrder == TokenOrder::kRows) return x[t] + vec * kLanes;
    return x[0] + (vec * kTokens + t) * kLanes;
  }

  // The block's sums are added to `sums`, [kTokens][kRows].
  void addBlock(int64_t beginGroup, int64_t cols, Vec sums[kSums]) {
#pragma GCC unroll 32
    for (Vec& v : acc) v = zero();
    const int64_t endGroup = beginGroup + cols / kGroup;
    for (int64_t group = beginGroup; group < endGroup; ++group) multiplyGroup(group);
    if (cols % kGroup > 0) multiplyTail(endGroup, cols % kGroup);
#pragma GCC unroll 8
    for (int i = 0; i < kCount / kLanes; ++i) sums[i] = add(sums[i], sumLanes(acc + i * kLanes));
    if constexpr (kCount % kLanes > 0) {
      static_assert(kCount % kLanes <= kLanes / 2, "a rest of chains is summed as half a vector");
      Vec rest[kLanes / 2] = {};
#pragma GCC unroll 16
      for (int i = 0; i < kCount % kLanes; ++i) rest[i] = acc[kCount / kLanes * kLanes + i];
      sums[kSums - 1] = add(sums[kSums - 1], sumLanesOfHalf(rest));
    }
  }

  // Rows share the tokens' loads, or tokens the rows' conversion, as far as the registers go.
  void multiplyGroup(int64_t group) {
    if constexpr (kType == DataType::kInt4) return multiplyInt4Group(group);
#pragma GCC unroll 4
    for (int i = 0; i < kVecs; ++i) {
      if constexpr (kTokens <= kRows) {
        Vec xs[kTokens];
        for (int t = 0; t < kTokens; ++t) xs[t] = load(unitsOf(t, group * kVecs + i));
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const Vec w = decodeRow(r, group, i);
#pragma GCC unroll 4
          for (int t = 0; t < kTokens; ++t) acc[t * kRows + r] = Units::multiplyAdd(w, xs[t], acc[t * kRows + r]);
        }
      } else {
        Vec w[kRows];
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) w[r] = decodeRow(r, group, i);
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) {
          const Vec xs = inRegister(load(unitsOf(t, group * kVecs + i)));
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) acc[t * kRows + r] = Units::multiplyAdd(w[r], xs, acc[t * kRows + r]);
        }
      }
    }
  }

  Vec decodeRow(int r, int64_t group, int i) const {
    constexpr int64_t kVecBytes = groupBytes<kType>() / kVecs;
    const std::byte* p = rows[r] + group * groupBytes<kType>() + i * kVecBytes;
    if (i * kVecBytes % 64 == 0) __builtin_prefetch(p + ahead, 0, 2);
    return Units::template decodeVec<kType>(p);
  }

  void multiplyInt4Group(int64_t group) {
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      Vec w[kVecs];
      __builtin_prefetch(rows[r] + group * groupBytes<kType>() + ahead, 0, 2);
      Units::template decodeGroup<kType>(rows[r] + group * groupBytes<kType>(), w);
#pragma GCC unroll 16
      for (int i = 0; i < kVecs; ++i)
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t)
          acc[t * kRows + r] = Units::multiplyAdd(w[i], load(unitsOf(t, group * kVecs + i)), acc[t * kRows + r]);
    }
  }

  // The last cols < 64 columns, reading nothing behind them.
  void multiplyTail(int64_t group, int64_t cols) {
    const int64_t units = (cols + Units::kColumns - 1) / Units::kColumns;
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      Vec w[kVecs];
      decodeTail<Units, kType>(rows[r] + group * groupBytes<kType>(), cols, w);
      for (int i = 0; i * kLanes < units; ++i)
#pragma GCC unroll 16
        for (int t = 0; t < kTokens; ++t) {
          const Vec xs = loadUpTo(unitsOf(t, group * kVecs + i), units - i * kLanes);
          acc[t * kRows + r] = Units::multiplyAdd(w[i], xs, acc[t * kRows + r]);
        }
    }
  }
};

// Sums of [kTokens][kRows] output elements, in as many vectors as they fill.
template <int kTokens, int kRows>
struct Sums {
  static constexpr int kVecs = (kTokens * kRows + kLanes - 1) / kLanes;

  static void start(const float* bias, int64_t numRows, Vec sums[kVecs]) {
    float values[kVecs * kLanes] = {};
    if (bias != nullptr)
      for (int i = 0; i < kTokens * kRows; ++i) values[i] = bias[smaller(i % kRows, numRows - 1)];
    for (int i = 0; i < kVecs; ++i) sums[i] = load(values + i * kLanes);
  }

  static void write(const Vec sums[kVecs], int64_t numRows, int64_t numTokens, float* out, int64_t stride) {
    float values[kVecs * kLanes];
    for (int i = 0; i < kVecs; ++i) store(values + i * kLanes, sums[i]);
    const auto write = [&](int t, int64_t rows) {
      __builtin_memcpy(out + t * stride, values + t * kRows, static_cast<size_t>(rows) * sizeof(float));
    };
    // Of a known size: without a call.
    for (int t = 0; t < smaller(kTokens, numTokens); ++t) numRows >= kRows ? write(t, kRows) : write(t, numRows);
  }
};

// Up to kMostRows tokens: as many rows as make kLanes chains (one token: half as many), whose sums come at once, from
// their first to their last column.
template <typename Units, DataType kType, int kTokens>
void multiplyFewTokens(const Product& p) {
  constexpr int64_t kBlockColumns = kBlockUnits * Units::kColumns;
  // More rows than these side by side are read at two thirds of the rate.
  constexpr int kRows = static_cast<int>(smaller(kLanes / kTokens, 8));
  for (int64_t row = 0; row < p.weight.rows; row += kRows) {
    const int64_t ahead = p.ahead > 0 ? p.ahead : kRows * p.weight.stride;
    Chains<Units, kType, kTokens, kRows, TokenOrder::kRows> chains(p, row, p.x, ahead);
    Vec sums[1];
    Sums<kTokens, kRows>::start(p.bias != nullptr ? p.bias + row : nullptr, p.weight.rows - row, sums);
    for (int64_t col = 0; col < p.weight.cols; col += kBlockColumns)
      chains.addBlock(col / kGroup, smaller(kBlockColumns, p.weight.cols - col), sums);
    Sums<kTokens, kRows>::write(sums, p.weight.rows - row, p.tokens, p.out + row, p.outStride);
  }
}

// One block of all rows and of one tile of tokens, which stays in the L1 cache. Sums wait in `kept` for the next block.
template <typename Units, DataType kType, int kTokens>
float* multiplyTokenTile(const Product& p, int64_t token, int64_t col, float* kept) {
  constexpr int kRows = kFewChains / kTokens;
  using TileChains = Chains<Units, kType, kTokens, kRows, TokenOrder::kUnits>;
  const float* x = p.x + token / kTokens * p.layout.stride;
  const int64_t cols = smaller(kBlockUnits * Units::kColumns, p.weight.cols - col);
  const bool last = col + cols == p.weight.cols;
  for (int64_t row = 0; row < p.weight.rows; row += kRows, kept += TileChains::kSums * kLanes) {
    // The first tile brings the rows that come next into the L2 cache, where the others find them.
    TileChains chains(p, row, x, token == 0 ? kRows * p.weight.stride : 0);
    Vec sums[TileChains::kSums];
    if (col == 0) Sums<kTokens, kRows>::start(p.bias != nullptr ? p.bias + row : nullptr, p.weight.rows - row, sums);
    for (int i = 0; col > 0 && i < TileChains::kSums; ++i) sums[i] = load(kept + i * kLanes);
    chains.addBlock(col / kGroup, cols, sums);
    for (int i = 0; !last && i < TileChains::kSums; ++i) store(kept + i * kLanes, sums[i]);
    if (!last) continue;
    Sums<kTokens, kRows>::write(sums, p.weight.rows - row, p.tokens - token, p.out + token * p.outStride + row,
                                p.outStride);
  }
  return kept;
}

// Calls tile.operator()<kTokens>() for tokens in 1..kMost known only at run time.
template <int kMost, typename Tile>
inline void withTokens(int64_t tokens, Tile&& tile) {
  if constexpr (kMost > 1) {
    if (tokens < kMost) return withTokens<kMost - 1>(tokens, tile);
  }
  tile.template operator()<kMost>();
}

// More tokens: block after block, so that a tile's tokens are read from the L1 cache and the rows come from memory
// once.
template <typename Units, DataType kType>
void multiplyTokenTiles(const Product& p) {
  withTokens<kFewTileTokens>(p.layout.tileTokens, [&]<int kTokens>() {
    // More than kMostRows tokens make no smaller tiles.
    if constexpr (kTokens > 2) {
      for (int64_t col = 0; col < p.weight.cols; col += kBlockUnits * Units::kColumns) {
        float* kept = p.panel;
        for (int64_t token = 0; token < p.tokens; token += kTokens)
          kept = multiplyTokenTile<Units, kType, kTokens>(p, token, col, kept);
      }
    }
  });
}

template <typename Units, DataType kType>
void multiplyRows(const Product& p) {
  if (p.tokens == 1) return multiplyFewTokens<Units, kType, 1>(p);
  if (p.tokens == 2) return multiplyFewTokens<Units, kType, 2>(p);
  multiplyFewTokens<Units, kType, 4>(p);
}

// ---- Many tokens ----------------------------------------------------------------------------------------------------
// Both operands are packed as [slot][step][row or token], unit = step * kLanes + laneOfSlot(slot).

constexpr int64_t kTileRows = 2 * kLanes;
static_assert(kPanelFloats >= kPanelRows * kLanes * (kBlockSteps + 1) && kPanelRows % kTileRows == 0);

// Steps of a packed block of a matrix with `cols` columns: whole groups.
template <typename Units>
inline int64_t blockSteps(int64_t cols) {
  return smaller(kBlockSteps, roundUp(cols, kGroup) / (kLanes * Units::kColumns));
}
// Of a panel's tile. The extra step keeps the slots' beginnings in different sets of the L1 cache.
inline int64_t slotFloats(int64_t steps) { return (steps + 1) * kTileRows; }

// Where a tile of the output goes.
struct Output {
  const float* bias;  // of the first row, or null
  float* out;
  int64_t stride, rows;
  bool first;  // block: starts from the bias
};

template <int kTokens>
void writeTile(const Vec sums[kTokens][2], const Output& o) {
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const int64_t rows = o.rows - v * kLanes;
      if (rows <= 0) continue;
      float* out = o.out + t * o.stride + v * kLanes;
      const float* start = !o.first ? out : o.bias != nullptr ? o.bias + v * kLanes : nullptr;
      storeUpTo(out, rows, add(start != nullptr ? loadUpTo(start, rows) : zero(), sums[t][v]));
    }
}

// A tile of a panel, and a tile of tokens. steps: to multiply; the strides are those of the packed blocks.
struct TilePair {
  const float *weights, *tokens;
  int64_t steps, weightSlot, tokenSlot, tileTokens;
};

// One slot: kTokens x kTileRows chains.
template <typename Units, int kTokens>
inline void multiplySlot(const TilePair& p, int64_t slot, Vec acc[kTokens][2]) {
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) acc[t][0] = acc[t][1] = zero();
  const float *w = p.weights + slot * p.weightSlot, *x = p.tokens + slot * p.tokenSlot;
  const int64_t tileTokens = p.tileTokens;
  for (const float* end = w + p.steps * kTileRows; w < end; w += kTileRows, x += tileTokens) {
    const Vec w0 = load(w), w1 = load(w + kLanes);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const Vec xs = set1(x[t]);
      acc[t][0] = Units::multiplyAdd(w0, xs, acc[t][0]);
      acc[t][1] = Units::multiplyAdd(w1, xs, acc[t][1]);
    }
  }
}

// Adds up neighbouring slots, then neighbouring pairs, ...: the tree of sumLanes. waiting[level]: the sum of 2^level
// slots whose neighbours are still to come.
template <typename Units, int kTokens>
void multiplyTile(const TilePair& p, const Output& o) {
  Vec waiting[kLaneLevels + 1][kTokens][2];
  for (int64_t slot = 0; slot < kLanes; ++slot) {
    Vec acc[kTokens][2];
    multiplySlot<Units, kTokens>(p, slot, acc);
    int level = 0;
    for (; (slot >> level & 1) != 0; ++level)
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) acc[t][v] = add(waiting[level][t][v], acc[t][v]);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 2
      for (int v = 0; v < 2; ++v) waiting[level][t][v] = acc[t][v];
  }
  writeTile<kTokens>(waiting[kLaneLevels], o);
}

// Stores kLanes units of kLanes rows, of which `rows` count, as one step of a packed block.
inline void storeSquare(Vec v[kLanes], int64_t rows, int64_t slotStride, float* out) {
  transpose(v);
#pragma GCC unroll 16
  for (int lane = 0; lane < kLanes; ++lane) storeUpTo(out + slotOfLane(lane) * slotStride, rows, v[lane]);
}

template <typename Units, DataType kType>
inline void packSquare(const std::byte* const rows[kLanes], int64_t offset, int64_t cols, int64_t slotStride,
                       float* out) {
  constexpr int64_t kBytes = kLanes * Units::kColumns * groupBytes<kType>() / kGroup;
  const bool whole = cols >= kLanes * Units::kColumns;
  Vec v[kLanes];
#pragma GCC unroll 16
  for (int row = 0; row < kLanes; ++row) {
    const std::byte* p = rows[row] + offset;
    // The same columns of the next block, which come after the other rows of this one.
    __builtin_prefetch(p + kBlockSteps * kBytes, 0, 2);
    v[row] = whole ? Units::template decodeVec<kType>(p) : decodePartial<Units, kType>(p, cols);
  }
  storeSquare(v, kLanes, slotStride, out);
}

// Columns [0, cols) of kLanes rows; units beyond the last column are finite, tokens have zeros there.
template <typename Units, DataType kType>
void packRows(const std::byte* const rows[kLanes], int64_t cols, int64_t slotStride, float* out) {
  constexpr int64_t kStepColumns = kLanes * Units::kColumns;
  if constexpr (kType == DataType::kInt4) {
    for (int64_t col = 0; col < cols; col += kGroup)
      packInt4Group(rows, col / kGroup * kInt4GroupBytes, out + col / kStepColumns * kTileRows, slotStride, kTileRows);
  } else {
    for (int64_t col = 0; col < cols; col += kStepColumns)
      packSquare<Units, kType>(rows, col * groupBytes<kType>() / kGroup, cols - col, slotStride,
                               out + col / kStepColumns * kTileRows);
  }
}

// One block of up to kPanelRows rows. Rows beyond the last one repeat it.
template <typename Units, DataType kType>
void packPanel(const RowBlock& w, int64_t row, int64_t rows, int64_t col, int64_t cols, int64_t slotStride,
               float* panel) {
  for (int64_t r = 0; r < roundUp(rows, kTileRows); r += kLanes) {
    const std::byte* lanes[kLanes];
    for (int64_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = w.data + (row + smaller(r + lane, rows - 1)) * w.stride + col / kGroup * groupBytes<kType>();
    packRows<Units, kType>(lanes, cols, slotStride, panel + r / kTileRows * kLanes * slotStride + r % kTileRows);
  }
}

template <typename Units, DataType kType>
void multiplyPanel(const Product& p, int64_t row, int64_t rows, int64_t col) {
  constexpr int64_t kStepColumns = kLanes * Units::kColumns;
  const int64_t cols = smaller(kBlockSteps * kStepColumns, p.weight.cols - col),
                steps = blockSteps<Units>(p.weight.cols);
  const int64_t weightSlot = slotFloats(steps), tokenSlot = steps * p.layout.tileTokens;
  packPanel<Units, kType>(p.weight, row, rows, col, cols, weightSlot, p.panel);
  const float* x = p.x + col / kStepColumns * kLanes * p.layout.tileTokens;
  for (int64_t token = 0; token < p.tokens; token += p.layout.tileTokens, x += p.layout.stride)
    withTokens<kTileTokens>(smaller(p.layout.tileTokens, p.tokens - token), [&]<int kTokens>() {
      for (int64_t r = 0; r < rows; r += kTileRows) {
        const TilePair tiles{p.panel + r / kTileRows * kLanes * weightSlot, x, (cols + kStepColumns - 1) / kStepColumns,
                             weightSlot, tokenSlot, p.layout.tileTokens};
        multiplyTile<Units, kTokens>(tiles, {p.bias != nullptr ? p.bias + row + r : nullptr,
                                             p.out + token * p.outStride + row + r, p.outStride, rows - r, col == 0});
      }
    });
}

template <typename Units, DataType kType>
void multiplyTiles(const Product& p) {
  for (int64_t row = 0; row < p.weight.rows; row += kPanelRows)
    for (int64_t col = 0; col < p.weight.cols; col += kBlockUnits * Units::kColumns)
      multiplyPanel<Units, kType>(p, row, smaller(kPanelRows, p.weight.rows - row), col);
}

template <typename Units, DataType kType>
void multiplyUnits(const Product& p) {
  switch (p.layout.order) {
    case TokenOrder::kRows: return multiplyRows<Units, kType>(p);
    case TokenOrder::kUnits: return multiplyTokenTiles<Units, kType>(p);
    case TokenOrder::kTokens: return multiplyTiles<Units, kType>(p);
    case TokenOrder::kInt8Groups: break;  // multiplyInt8
  }
}

#include "cpu/product_int8-inl.h"

void multiply(const Product& p) {
  if (p.layout.order == TokenOrder::kInt8Groups) return multiplyInt8(p);
  withUnits(p.weight.dtype, p.layout.pairs, [&]<typename Units, DataType kType>() { multiplyUnits<Units, kType>(p); });
}

// ---- Tokens ---------------------------------------------------------------------------------------------------------

template <typename Units>
TokenLayout layoutOf(int64_t tokens, int64_t cols, int64_t mostFew) {
  constexpr bool kPairs = Units::kColumns == 2;
  const int64_t rowUnits = roundUp(cols, 2 * kGroup) / Units::kColumns;
  if (tokens <= kMostRows) return {TokenOrder::kRows, 1, rowUnits, kPairs};
  const bool few = tokens <= mostFew;
  const int64_t mostTileTokens = few ? kFewTileTokens : kTileTokens;
  const int64_t tiles = (tokens + mostTileTokens - 1) / mostTileTokens;
  const int64_t tileTokens = larger(2, (tokens + tiles - 1) / tiles);
  if (few) return {TokenOrder::kUnits, tileTokens, tileTokens * rowUnits, kPairs};
  const int64_t blocks = (cols + kBlockUnits * Units::kColumns - 1) / (kBlockUnits * Units::kColumns);
  return {TokenOrder::kTokens, tileTokens, blocks * blockSteps<Units>(cols) * kLanes * tileTokens, kPairs};
}

TokenLayout tokenLayout(DataType weight, int64_t tokens, int64_t cols, bool exact) {
  if (weight == DataType::kInt4) return int8Layout(tokens, cols);
  TokenLayout layout{};
  withUnits(weight, multipliesPairs(weight) && !exact,
            [&]<typename Units, DataType kType>() { layout = layoutOf<Units>(tokens, cols, mostFewTokens(weight)); });
  return layout;
}

// Tokens one after the other, vector by vector. One token: a row.
template <typename Units>
void packVectors(const float* x, int64_t xStride, int64_t tokens, int64_t cols, int64_t tileTokens, float* out) {
  for (int64_t col = 0; col < cols; col += kLanes * Units::kColumns)
    for (int64_t t = 0; t < tileTokens; ++t, out += kLanes)
      store(out, t < tokens ? Units::fromFloats(x + t * xStride + col, cols - col) : zero());
}

template <typename Units>
void packTile(const float* x, int64_t xStride, int64_t tokens, int64_t cols, const TokenLayout& layout, float* out) {
  constexpr int64_t kStepColumns = kLanes * Units::kColumns;
  const int64_t steps = blockSteps<Units>(cols), block = steps * kLanes * layout.tileTokens;
  for (int64_t col = 0; col < cols; col += kStepColumns) {
    Vec v[kLanes];
    for (int64_t t = 0; t < kLanes; ++t)
      v[t] = t < tokens ? Units::fromFloats(x + t * xStride + col, cols - col) : zero();
    const int64_t step = col / kStepColumns;
    storeSquare(v, layout.tileTokens, steps * layout.tileTokens,
                out + step / kBlockSteps * block + step % kBlockSteps * layout.tileTokens);
  }
}

template <typename Units>
void packUnits(const float* x, int64_t xStride, int64_t tokens, int64_t cols, const TokenLayout& layout, float* out) {
  for (int64_t t = 0; t < tokens; t += layout.tileTokens, out += layout.stride, x += layout.tileTokens * xStride) {
    const int64_t inTile = smaller(layout.tileTokens, tokens - t);
    layout.order == TokenOrder::kTokens ? packTile<Units>(x, xStride, inTile, cols, layout, out)
                                        : packVectors<Units>(x, xStride, inTile, cols, layout.tileTokens, out);
  }
}

void packTokens(const float* x, int64_t xStride, int64_t tokens, int64_t cols, const TokenLayout& layout, float* out) {
  if (layout.order == TokenOrder::kInt8Groups) return packInt8(x, xStride, tokens, cols, layout, out);
#if defined(FLEXPLAN_PAIRS)
  if (layout.pairs) return packUnits<PairUnits>(x, xStride, tokens, cols, layout, out);
#endif
  packUnits<FloatUnits>(x, xStride, tokens, cols, layout, out);
}
