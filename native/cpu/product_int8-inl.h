// Products of 4-bit weights and tokens rounded to 8 bits, part of kernels-inl.h.
//
// In a group g of 64 columns a weight is q · scale + min, q in 0..15, and a token is x ≈ n · unit, n a whole number in
// -127..127, unit = max |x| / 127. With middle = min + 8 · scale,
//   y = bias + sum over g of unit · (scale · sum of (q - 8) · n + middle · (sum of x) / unit).
// The sum of whole numbers is exact. What the rounding of tokens does to y does not depend on min, since the sum of x
// is not rounded; and 8 is where weights around zero have their middle. Groups are added in order, so each y depends on
// its own operands alone.
//
// Lanes are rows. The weights of some vectors of rows are unpacked, some groups at a time, and then used by all tokens
// at hand; where these are but one tile, straight from the registers.

// ---- Tokens ---------------------------------------------------------------------------------------------------------

constexpr int kQuads = kGroup / 4;

// One group of one token. Packed tokens: [tile][group][token of the tile].
struct TokenGroup {
  // Of 4 columns each, in the order of a weight group's bytes: quad j < 8 meets the low nibbles of dword j, quad 8 + j
  // the high ones.
  int32_t quads[kQuads];
  int32_t start;  // -8 · sum of n
  float unit;     // NaN in, NaN out: where a token has one, or an infinity, `sum` is NaN
  float sum;      // of x / unit
};
constexpr int64_t kTokenGroupFloats = sizeof(TokenGroup) / sizeof(float);

inline int64_t numGroups(int64_t cols) { return (cols + kGroup - 1) / kGroup; }

// Groups of smaller numbers have the unit of this one: its reciprocal is finite.
constexpr float kLeastLargest = 0x1p-100f;

// Groups of one token that are rounded together, which have their sums and divisions in common.
constexpr int64_t kBatchColumns = kLanes * kGroup;

// Lane g: the largest magnitude of group g, or kLeastLargest.
inline Vec largestOf(const float* x) {
  Vec lanes[kLanes];
#pragma GCC unroll 16
  for (int g = 0; g < kLanes; ++g) {
    lanes[g] = set1(kLeastLargest);
#pragma GCC unroll 16
    for (int i = 0; i < kGroupVecs; ++i) {
      const Vec v = load(x + g * kGroup + i * kLanes);
      lanes[g] = max(lanes[g], max(v, sub(zero(), v)));
    }
  }
  transpose(lanes);
  for (int g = 1; g < kLanes; ++g) lanes[0] = max(lanes[0], lanes[g]);
  return lanes[0];
}

// Writes the whole numbers of one group. sum, wholeSum: lanes to be added up.
inline void roundGroup(const float* x, float perUnit, int32_t quads[kQuads], Vec& sum, Vec& wholeSum) {
  Vec v[kGroupVecs];
  sum = wholeSum = zero();
#pragma GCC unroll 16
  for (int i = 0; i < kGroupVecs; ++i) {
    v[i] = mul(load(x + i * kLanes), set1(perUnit));
    sum = add(sum, v[i]);
    v[i] = round(min(v[i], set1(127.0f)));  // NaN becomes 127, a whole number
    wholeSum = add(wholeSum, v[i]);
  }
  std::byte* const bytes = reinterpret_cast<std::byte*>(quads);
  constexpr int kQuarter = kGroupVecs / 4;
#pragma GCC unroll 4
  for (int i = 0; i < kQuarter; ++i) {
    storeBytePairs(v[i], v[2 * kQuarter + i], bytes + i * kLanes * 2);
    storeBytePairs(v[kQuarter + i], v[3 * kQuarter + i], bytes + kGroup / 2 + i * kLanes * 2);
  }
}

// The first `groups` groups of kBatchColumns columns; out: `stride` apart.
inline void packBatch(const float* x, int64_t groups, TokenGroup* out, int64_t stride) {
  const Vec largest = largestOf(x);
  float units[kLanes], perUnit[kLanes], sums[kLanes], wholeSums[kLanes];
  store(units, div(largest, set1(127.0f)));
  store(perUnit, div(set1(127.0f), largest));
  Vec sum[kLanes], wholeSum[kLanes];
  for (int64_t g = 0; g < kLanes; ++g) sum[g] = wholeSum[g] = zero();
  for (int64_t g = 0; g < groups; ++g)
    roundGroup(x + g * kGroup, perUnit[g], out[g * stride].quads, sum[g], wholeSum[g]);
  store(sums, sumLanes(sum));
  store(wholeSums, sumLanes(wholeSum));
  for (int64_t g = 0; g < groups; ++g, out += stride) {
    out->start = -8 * static_cast<int32_t>(wholeSums[g]);
    out->unit = units[g];
    out->sum = sums[g];
  }
}

// Columns beyond the last one are zero.
void packToken(const float* x, int64_t cols, TokenGroup* out, int64_t stride) {
  for (; cols >= kBatchColumns; cols -= kBatchColumns, x += kBatchColumns, out += kLanes * stride)
    packBatch(x, kLanes, out, stride);
  if (cols == 0) return;
  float last[kBatchColumns] = {};
  __builtin_memcpy(last, x, static_cast<size_t>(cols) * sizeof(float));
  packBatch(last, numGroups(cols), out, stride);
}

TokenLayout int8Layout(int64_t tokens, int64_t cols) {
  const int64_t tiles = (tokens + kByteTileTokens - 1) / kByteTileTokens, tileTokens = (tokens + tiles - 1) / tiles;
  return {TokenOrder::kInt8Groups, tileTokens, numGroups(cols) * tileTokens * kTokenGroupFloats, false};
}

void packInt8(const float* x, int64_t xStride, int64_t tokens, int64_t cols, const TokenLayout& layout, float* out) {
  for (int64_t t = 0; t < tokens; ++t) {
    float* tile = out + t / layout.tileTokens * layout.stride;
    packToken(x + t * xStride, cols, reinterpret_cast<TokenGroup*>(tile) + t % layout.tileTokens, layout.tileTokens);
  }
}

// ---- Weights --------------------------------------------------------------------------------------------------------

constexpr int64_t kByteTileRows = kByteTileVecs * kLanes;

// One group of kByteTileRows rows.
struct alignas(64) WeightGroup {
  int32_t quads[kQuads][kByteTileRows];
  float scale[kByteTileRows], middle[kByteTileRows];
};

// kLanes rows into lanes from `lane` on.
inline void unpackRows(const std::byte* const rows[kLanes], int64_t offset, int64_t lane, WeightGroup& out) {
  Ints words[8];
  transposeWords(rows, offset, words);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    store(out.quads[i] + lane, lowNibbles(words[i]));
    store(out.quads[8 + i] + lane, highNibbles(words[i]));
  }
  Vec scale, min;
  loadHeaders(rows, offset, scale, min);
  store(out.scale + lane, scale);
  store(out.middle + lane, fma(scale, set1(8.0f), min));
}

// ---- Products -------------------------------------------------------------------------------------------------------

// sums: [kTokens][kByteTileRows], of which kVecs vectors of rows count.
template <int kVecs, int kTokens>
inline void multiplyGroup(const WeightGroup& w, const TokenGroup* x, float* sums) {
  Ints total[kTokens][kVecs];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) total[t][v] = broadcast(x[t].start);
#pragma GCC unroll 2
  for (int first = 0; first < kQuads; first += kQuadsPerSum) {
    Ints open[kTokens][kVecs];
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) open[t][v] = openSums(total[t][v]);
#pragma GCC unroll 1
    for (int quad = first; quad < first + kQuadsPerSum; ++quad) {
      Ints weights[kVecs];
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) weights[v] = load(w.quads[quad] + v * kLanes);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        const Ints xs = broadcast(x[t].quads[quad]);
#pragma GCC unroll 4
        for (int v = 0; v < kVecs; ++v) open[t][v] = addProducts(weights[v], xs, open[t][v]);
      }
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 4
      for (int v = 0; v < kVecs; ++v) total[t][v] = closeSums(open[t][v], total[t][v]);
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t)
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      const Vec steps = mul(load(w.scale + v * kLanes), toFloat(total[t][v]));
      const Vec units = fma(load(w.middle + v * kLanes), set1(x[t].sum), steps);
      float* sum = sums + t * kByteTileRows + v * kLanes;
      store(sum, fma(units, set1(x[t].unit), load(sum)));
    }
}

// Groups whose weights are unpacked at a time: they stay in the L1 cache while all tokens pass.
constexpr int64_t kByteBlockGroups = 2;
// Tokens of a pass: their sums stay in the L2 cache.
constexpr int64_t kPassTokens = 40 * kByteTileTokens;
static_assert(kPanelFloats >= kPassTokens * kByteTileRows && kPanelRows % kByteTileRows == 0);

// Up to kByteTileRows rows by up to kPassTokens tokens, whole tiles of them.
template <int kVecs>
struct BytePass {
  const Product& product;
  int64_t row, firstToken, numTokens;
  float* sums = product.panel;  // [numTokens][kByteTileRows]
  int64_t numRows = smaller(kVecs * kLanes, product.weight.rows - row);

  void startSums() const {
    for (int v = 0; v < kVecs; ++v) {
      const int64_t n = numRows - v * kLanes;
      const Vec start = product.bias != nullptr && n > 0 ? loadUpTo(product.bias + row + v * kLanes, n) : zero();
      for (int64_t t = 0; t < numTokens; ++t) store(sums + t * kByteTileRows + v * kLanes, start);
    }
  }

  void unpack(const std::byte* const rows[], int64_t firstGroup, int64_t endGroup, WeightGroup* out) const {
    for (int64_t group = firstGroup; group < endGroup; ++group, ++out)
      for (int v = 0; v < kVecs; ++v) unpackRows(rows + v * kLanes, group * kInt4GroupBytes, v * kLanes, *out);
  }

  // The same groups of the next rows, which lie behind these.
  void prefetch(int64_t firstGroup, int64_t endGroup) const {
    constexpr int64_t kBytes = kVecs * kLanes * kInt4GroupBytes;
    const std::byte* next = product.weight.data + (row + kVecs * kLanes) * product.weight.stride;
    for (int64_t i = firstGroup * kBytes; i < endGroup * kBytes; i += 64) __builtin_prefetch(next + i, 0, 2);
  }

  void multiplyBlock(const WeightGroup* w, int64_t firstGroup, int64_t endGroup) const {
    const TokenLayout& layout = product.layout;
    const float* tile = product.x + firstToken / layout.tileTokens * layout.stride;
    for (int64_t t = 0; t < numTokens; t += layout.tileTokens, tile += layout.stride)
      withTokens<kByteTileTokens>(smaller(layout.tileTokens, numTokens - t), [&]<int kTokens>() {
        const TokenGroup* x = reinterpret_cast<const TokenGroup*>(tile) + firstGroup * layout.tileTokens;
        for (int64_t group = 0; group < endGroup - firstGroup; ++group, x += layout.tileTokens)
          multiplyGroup<kVecs, kTokens>(w[group], x, sums + t * kByteTileRows);
      });
  }

  void multiply() const {
    const int64_t groups = numGroups(product.weight.cols);
    const bool last = firstToken + numTokens == product.tokens;
    const std::byte* rows[kVecs * kLanes];
    // Rows beyond the last one repeat it.
    for (int64_t r = 0; r < kVecs * kLanes; ++r)
      rows[r] = product.weight.data + (row + smaller(r, numRows - 1)) * product.weight.stride;
    WeightGroup unpacked[kByteBlockGroups];
    startSums();
    for (int64_t group = 0; group < groups; group += kByteBlockGroups) {
      const int64_t end = smaller(group + kByteBlockGroups, groups);
      if (last) prefetch(group, end);
      unpack(rows, group, end, unpacked);
      multiplyBlock(unpacked, group, end);
    }
    for (int64_t t = 0; t < numTokens; ++t)
      __builtin_memcpy(product.out + (firstToken + t) * product.outStride + row, sums + t * kByteTileRows,
                       static_cast<size_t>(numRows) * sizeof(float));
  }
};

// One tile of tokens: weights are used where they are unpacked, in registers.
template <int kTokens>
struct OneTile {
  const Product& product;
  int64_t row;
  int64_t numRows = smaller(kLanes, product.weight.rows - row);

  // One group of kLanes rows.
  void multiplyGroup(const std::byte* const rows[kLanes], int64_t group, Vec sums[kTokens]) const {
    const TokenGroup* x = reinterpret_cast<const TokenGroup*>(product.x) + group * product.layout.tileTokens;
    Ints words[kQuads / 2], low[kTokens], high[kTokens];
    transposeWords(rows, group * kInt4GroupBytes, words);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      low[t] = openSums(broadcast(x[t].start));
      high[t] = openSums(broadcast(0));
    }
#pragma GCC unroll 8
    for (int i = 0; i < kQuads / 2; ++i)
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
        low[t] = addProducts(lowNibbles(words[i]), broadcast(x[t].quads[i]), low[t]);
        high[t] = addProducts(highNibbles(words[i]), broadcast(x[t].quads[kQuads / 2 + i]), high[t]);
      }
    Vec scale, min;
    loadHeaders(rows, group * kInt4GroupBytes, scale, min);
    const Vec middle = fma(scale, set1(8.0f), min);
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const Ints total = sumOf(closeSums(low[t], broadcast(x[t].start)), closeSums(high[t], broadcast(0)));
      const Vec units = fma(middle, set1(x[t].sum), mul(scale, toFloat(total)));
      sums[t] = fma(units, set1(x[t].unit), sums[t]);
    }
  }

  void multiply() const {
    const int64_t groups = numGroups(product.weight.cols);
    const std::byte* rows[kLanes];
    // Rows beyond the last one repeat it.
    for (int64_t r = 0; r < kLanes; ++r)
      rows[r] = product.weight.data + (row + smaller(r, numRows - 1)) * product.weight.stride;
    const Vec start = product.bias != nullptr ? loadUpTo(product.bias + row, numRows) : zero();
    Vec sums[kTokens];
    for (Vec& sum : sums) sum = start;
    for (int64_t group = 0; group < groups; ++group) {
      prefetchRows(rows[0] + kLanes * product.weight.stride, group);
      multiplyGroup(rows, group, sums);
    }
    for (int t = 0; t < kTokens; ++t) storeUpTo(product.out + t * product.outStride + row, numRows, sums[t]);
  }

  // The share of one group in the next rows, which lie behind these.
  static void prefetchRows(const std::byte* next, int64_t group) {
    constexpr int64_t kBytes = kLanes * kInt4GroupBytes;
#pragma GCC unroll 16
    for (int64_t i = 0; i < kBytes; i += 64) __builtin_prefetch(next + group * kBytes + i, 0, 2);
  }
};

void multiplyOneTile(const Product& p) {
  withTokens<kByteTileTokens>(p.tokens, [&]<int kTokens>() {
    for (int64_t row = 0; row < p.weight.rows; row += kLanes) OneTile<kTokens>{p, row}.multiply();
  });
}

void multiplyInt8(const Product& p) {
  if (p.tokens <= p.layout.tileTokens) return multiplyOneTile(p);
  const int64_t passTokens = kPassTokens / p.layout.tileTokens * p.layout.tileTokens;
  for (int64_t token = 0; token < p.tokens; token += passTokens) {
    const int64_t tokens = smaller(passTokens, p.tokens - token);
    for (int64_t row = 0; row < p.weight.rows; row += kByteTileRows)
      p.weight.rows - row > kByteTileRows / 2 ? BytePass<kByteTileVecs>{p, row, token, tokens}.multiply()
                                              : BytePass<kByteTileVecs / 2>{p, row, token, tokens}.multiply();
  }
}
