// Products of weights and tokens, part of kernels-inl.h.
//
// A unit is what one 32-bit lane holds: one fp32 column, or a pair of bf16 columns. The order of additions is the same on both ways
// below: in a block of kBlockUnits units, lane l chains the products of units l, l + kLanes, ...; the lanes' chains are added as
// sumLanes says; then the block is added to the output. Few tokens: lanes are units, nothing is moved. Many tokens: lanes are rows,
// which reads least per multiply-add, but needs weights and tokens transposed.

constexpr int64_t kBlockSteps = kBlockUnits / kLanes;

// ---- Few tokens ----------------------------------------------------------------------------------------------------------

// As many rows as make kLanes accumulators with kTokens tokens: their sums come at once.
template <typename Units, DataType kType, int kTokens>
struct FewTokens {
  static constexpr int kRows = kLanes / kTokens;
  static constexpr int kVecs = Units::kVecs;
  static constexpr int64_t kGroupUnits = kVecs * kLanes;
  const std::byte* rows[kRows];
  const float* x[kTokens];
  int64_t ahead;    // bytes to what comes next from memory
  Vec acc[kLanes];  // [kTokens][kRows]

  // Rows and tokens that do not exist repeat the last one.
  FewTokens(const Product& p, int64_t row, int64_t token) {
    for (int r = 0; r < kRows; ++r) rows[r] = p.weight.data + smaller(row + r, p.weight.rows - 1) * p.weight.stride;
    for (int t = 0; t < kTokens; ++t) x[t] = p.x + smaller(token + t, p.tokens - 1) * p.layout.stride;
    ahead = token + kTokens >= p.tokens ? kRows * p.weight.stride : 0;
  }

  // [kTokens][kRows]
  static Vec biases(const float* bias, int64_t numRows) {
    if (bias == nullptr) return zero();
    float values[kLanes];
    for (int i = 0; i < kLanes; ++i) values[i] = bias[smaller(i % kRows, numRows - 1)];
    return load(values);
  }

  static void write(Vec sums, int64_t numRows, int64_t numTokens, float* out, int64_t stride) {
    float values[kLanes];
    store(values, sums);
    for (int t = 0; t < smaller(kTokens, numTokens); ++t)
      __builtin_memcpy(out + t * stride, values + t * kRows, static_cast<size_t>(smaller(kRows, numRows)) * sizeof(float));
  }

  // The sums of one block, [kTokens][kRows].
  Vec multiplyBlock(int64_t beginGroup, int64_t cols) {
    for (Vec& v : acc) v = zero();
    const int64_t endGroup = beginGroup + cols / kGroup;
    for (int64_t group = beginGroup; group < endGroup; ++group) multiplyGroup(group);
    if (cols % kGroup > 0) multiplyTail(endGroup, cols % kGroup);
    return sumLanes(acc);
  }

  // Rows share the tokens' loads as far as the registers go.
  void multiplyGroup(int64_t group) {
    if constexpr (kType != DataType::kInt4) {
      constexpr int64_t kVecBytes = groupBytes<kType>() / kVecs;
#pragma GCC unroll 4
      for (int i = 0; i < kVecs; ++i) {
        Vec xs[kTokens];
        for (int t = 0; t < kTokens; ++t) xs[t] = load(x[t] + group * kGroupUnits + i * kLanes);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          const std::byte* p = rows[r] + group * groupBytes<kType>() + i * kVecBytes;
          if (i * kVecBytes % 64 == 0) __builtin_prefetch(p + ahead, 0, 2);
          const Vec w = Units::template decodeVec<kType>(p);
#pragma GCC unroll 4
          for (int t = 0; t < kTokens; ++t) acc[t * kRows + r] = Units::multiplyAdd(w, xs[t], acc[t * kRows + r]);
        }
      }
    } else {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        Vec w[kVecs];
        __builtin_prefetch(rows[r] + group * groupBytes<kType>() + ahead, 0, 2);
        Units::template decodeGroup<kType>(rows[r] + group * groupBytes<kType>(), w);
#pragma GCC unroll 16
        for (int i = 0; i < kVecs; ++i)
#pragma GCC unroll 4
          for (int t = 0; t < kTokens; ++t)
            acc[t * kRows + r] = Units::multiplyAdd(w[i], load(x[t] + group * kGroupUnits + i * kLanes), acc[t * kRows + r]);
      }
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
#pragma GCC unroll 4
        for (int t = 0; t < kTokens; ++t) {
          const Vec xs = loadUpTo(x[t] + group * kGroupUnits + i * kLanes, units - i * kLanes);
          acc[t * kRows + r] = Units::multiplyAdd(w[i], xs, acc[t * kRows + r]);
        }
    }
  }
};

template <typename Units, DataType kType, int kTokens>
void multiplyFewTokens(const Product& p, int64_t row, int64_t token) {
  constexpr int64_t kBlockColumns = kBlockUnits * Units::kColumns;
  FewTokens<Units, kType, kTokens> few(p, row, token);
  Vec sums = few.biases(p.bias != nullptr ? p.bias + row : nullptr, p.weight.rows - row);
  for (int64_t col = 0; col < p.weight.cols; col += kBlockColumns)
    sums = add(sums, few.multiplyBlock(col / kGroup, smaller(kBlockColumns, p.weight.cols - col)));
  few.write(sums, p.weight.rows - row, p.tokens - token, p.out + token * p.outStride + row, p.outStride);
}

template <typename Units, DataType kType, int kTokens>
void multiplyFewTokens(const Product& p) {
  for (int64_t row = 0; row < p.weight.rows; row += kLanes / kTokens)
    for (int64_t token = 0; token < p.tokens; token += kTokens) multiplyFewTokens<Units, kType, kTokens>(p, row, token);
}

template <typename Units, DataType kType>
void multiplyRows(const Product& p) {
  if (p.tokens == 1) return multiplyFewTokens<Units, kType, 1>(p);
  if (p.tokens == 2) return multiplyFewTokens<Units, kType, 2>(p);
  multiplyFewTokens<Units, kType, 4>(p);
}

// ---- Many tokens ---------------------------------------------------------------------------------------------------------
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

// Adds up neighbouring slots, then neighbouring pairs, ...: the tree of sumLanes. waiting[level]: the sum of 2^level slots whose
// neighbours are still to come.
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

// Calls tile.operator()<kTokens>() for tokens in 1..kMost known only at run time.
template <int kMost, typename Tile>
inline void withTokens(int64_t tokens, Tile&& tile) {
  if constexpr (kMost > 1) {
    if (tokens < kMost) return withTokens<kMost - 1>(tokens, tile);
  }
  tile.template operator()<kMost>();
}

// Stores kLanes units of kLanes rows, of which `rows` count, as one step of a packed block.
inline void storeSquare(Vec v[kLanes], int64_t rows, int64_t slotStride, float* out) {
  transpose(v);
#pragma GCC unroll 16
  for (int lane = 0; lane < kLanes; ++lane) storeUpTo(out + slotOfLane(lane) * slotStride, rows, v[lane]);
}

template <typename Units, DataType kType>
inline void packSquare(const std::byte* const rows[kLanes], int64_t offset, int64_t cols, int64_t slotStride, float* out) {
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

template <typename Units>
inline void packInt4(const std::byte* const rows[kLanes], int64_t offset, int64_t slotStride, float* out) {
  if constexpr (Units::kColumns == 1) {
    packInt4Group(rows, offset, out, slotStride, kTileRows);
  } else {
    Vec v[Units::kVecs][kLanes];
    for (int row = 0; row < kLanes; ++row) {
      Vec group[Units::kVecs];
      __builtin_prefetch(rows[row] + offset + 4 * kInt4GroupBytes, 0, 2);
      Units::template decodeGroup<DataType::kInt4>(rows[row] + offset, group);
      for (int i = 0; i < Units::kVecs; ++i) v[i][row] = group[i];
    }
    for (int i = 0; i < Units::kVecs; ++i) storeSquare(v[i], kLanes, slotStride, out + i * kTileRows);
  }
}

// Columns [0, cols) of kLanes rows; units beyond the last column are finite, tokens have zeros there.
template <typename Units, DataType kType>
void packRows(const std::byte* const rows[kLanes], int64_t cols, int64_t slotStride, float* out) {
  constexpr int64_t kStepColumns = kLanes * Units::kColumns;
  if constexpr (kType == DataType::kInt4) {
    for (int64_t col = 0; col < cols; col += kGroup)
      packInt4<Units>(rows, col / kGroup * kInt4GroupBytes, slotStride, out + col / kStepColumns * kTileRows);
  } else {
    for (int64_t col = 0; col < cols; col += kStepColumns)
      packSquare<Units, kType>(rows, col * groupBytes<kType>() / kGroup, cols - col, slotStride, out + col / kStepColumns * kTileRows);
  }
}

// One block of up to kPanelRows rows. Rows beyond the last one repeat it.
template <typename Units, DataType kType>
void packPanel(const RowBlock& w, int64_t row, int64_t rows, int64_t col, int64_t cols, int64_t slotStride, float* panel) {
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
  const int64_t cols = smaller(kBlockSteps * kStepColumns, p.weight.cols - col), steps = blockSteps<Units>(p.weight.cols);
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
  p.layout.tileTokens == 1 ? multiplyRows<Units, kType>(p) : multiplyTiles<Units, kType>(p);
}

void multiply(const Product& p) {
  withUnits(p.weight.dtype, p.layout.pairs, [&]<typename Units, DataType kType>() { multiplyUnits<Units, kType>(p); });
}

// ---- Tokens ----------------------------------------------------------------------------------------------------------------

template <typename Units>
TokenLayout layoutOf(int64_t tokens, int64_t cols, bool few) {
  constexpr bool kPairs = Units::kColumns == 2;
  if (few) return {1, roundUp(cols, 2 * kGroup) / Units::kColumns, kPairs};
  const int64_t tiles = (tokens + kTileTokens - 1) / kTileTokens;
  const int64_t tileTokens = larger(2, (tokens + tiles - 1) / tiles);
  const int64_t blocks = (cols + kBlockUnits * Units::kColumns - 1) / (kBlockUnits * Units::kColumns);
  return {tileTokens, blocks * blockSteps<Units>(cols) * kLanes * tileTokens, kPairs};
}

TokenLayout tokenLayout(DataType weight, int64_t tokens, int64_t cols, bool exact) {
  const bool few = tokens <= mostFewTokens(weight);
  TokenLayout layout{};
  withUnits(weight, multipliesPairs(weight) && !exact, [&]<typename Units, DataType kType>() { layout = layoutOf<Units>(tokens, cols, few); });
  return layout;
}

template <typename Units>
void packRow(const float* x, int64_t cols, float* out) {
  for (int64_t col = 0; col < cols; col += kLanes * Units::kColumns)
    store(out + col / Units::kColumns, Units::fromFloats(x + col, cols - col));
}

template <typename Units>
void packTile(const float* x, int64_t xStride, int64_t tokens, int64_t cols, const TokenLayout& layout, float* out) {
  constexpr int64_t kStepColumns = kLanes * Units::kColumns;
  const int64_t steps = blockSteps<Units>(cols), block = steps * kLanes * layout.tileTokens;
  for (int64_t col = 0; col < cols; col += kStepColumns) {
    Vec v[kLanes];
    for (int64_t t = 0; t < kLanes; ++t) v[t] = t < tokens ? Units::fromFloats(x + t * xStride + col, cols - col) : zero();
    const int64_t step = col / kStepColumns;
    storeSquare(v, layout.tileTokens, steps * layout.tileTokens,
                out + step / kBlockSteps * block + step % kBlockSteps * layout.tileTokens);
  }
}

template <typename Units>
void packUnits(const float* x, int64_t xStride, int64_t tokens, int64_t cols, const TokenLayout& layout, float* out) {
  for (int64_t t = 0; t < tokens; t += layout.tileTokens, out += layout.stride)
    layout.tileTokens == 1 ? packRow<Units>(x + t * xStride, cols, out)
                           : packTile<Units>(x + t * xStride, xStride, smaller(layout.tileTokens, tokens - t), cols, layout, out);
}

void packTokens(const float* x, int64_t xStride, int64_t tokens, int64_t cols, const TokenLayout& layout, float* out) {
#if defined(FLEXPLAN_PAIRS)
  if (layout.pairs) return packUnits<PairUnits>(x, xStride, tokens, cols, layout, out);
#endif
  packUnits<FloatUnits>(x, xStride, tokens, cols, layout, out);
}
