// Attention that reads few rows of V (AttentionShape::sparseValueFraction < 1), part of attention-inl.h. The scores of
// all positions are kept, so that the highest can be found; the softmax is the dense one, chunk by chunk, and only then
// rows of V are left out.

// Integers in the order of the scores; both zeros are the same.
inline uint32_t orderedKey(float score) {
  const float oneZero = score + 0.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &oneZero, sizeof(bits));
  return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}

// The highest value that at least `count` keys reach, bit by bit.
inline uint32_t countedThreshold(const uint32_t* keys, int64_t size, int64_t count) {
  uint32_t threshold = 0;
  for (uint32_t bit = 0x80000000u; bit != 0; bit >>= 1) {
    int32_t reached = 0;
    for (int64_t i = 0; i < size; ++i) reached += keys[i] >= (threshold | bit) ? 1 : 0;
    if (reached >= count) threshold |= bit;
  }
  return threshold;
}

inline int64_t keptPositions(double fraction, int64_t positions) {
  const double wanted = fraction * static_cast<double>(positions);
  const auto whole = static_cast<int64_t>(wanted);
  return smaller(positions, static_cast<double>(whole) < wanted ? whole + 1 : whole);
}

inline float highestScore(const float* scores, Range range) {
  Vec highest = set1(scores[range.begin]);
  int64_t i = range.begin;
  for (; i + kLanes <= range.end; i += kLanes) highest = max(highest, load(scores + i));
  for (; i < range.end; ++i) highest = max(highest, set1(scores[i]));
  return maxLane(highest);
}

// Adds the kept rows of V of one query row, in the order of positions. `scores` [positions of `all`] are probabilities
// by now.
template <DataType kType>
void addKeptValues(const AttentionUnit& u, const AttentionScratch& s, int64_t kvHead, Range all, Range range,
                   const float* scores, float* output) {
  const int64_t count = keptPositions(u.shape.sparseValueFraction, range.end - range.begin);
  const uint32_t threshold = countedThreshold(s.keys + range.begin, range.end - range.begin, count);
  int64_t above = 0;
  for (int64_t p = range.begin; p < range.end; ++p) above += s.keys[p] > threshold ? 1 : 0;
  // Of equal scores at the threshold the lower positions are kept.
  int64_t equals = count - above;
  for (int64_t p = range.begin; p < range.end; ++p) {
    if (s.keys[p] < threshold || (s.keys[p] == threshold && equals-- <= 0)) continue;
    const ValueRows row = valuesOf(u, kvHead, kvRow(u, all.begin + p));
    addValues<kType, 1>(row, u.shape.headDim, {0, 1}, scores + p, output, s.dim);
  }
}

// One query row; its scores lie from the first of `all` positions on.
void attendRowSparsely(const AttentionUnit& u, const AttentionScratch& s, int64_t kvHead, int64_t rowOfHead,
                       Range all) {
  const int64_t row = (kvHead - u.kvHeadBegin) * s.rowsPerKvHead + rowOfHead;
  float* scores = s.scores + rowOfHead * s.scoreStride;
  float* output = s.outputs + row * s.dim;
  const Range range = attendedInChunk(u, s, rowOfHead, all);
  for (int64_t p = range.begin; p < range.end; ++p) s.keys[p] = orderedKey(scores[p]);
  s.maxima[row] = highestScore(scores, range);
  for (int64_t p = all.begin; p < all.end; p += kAttentionChunk) {
    const Range own = attendedInChunk(u, s, rowOfHead, {p, smaller(p + kAttentionChunk, all.end)});
    if (own.begin < own.end) softmaxStep(scores + (p - all.begin), own, s.maxima[row], s.sums[row], output, s.dim);
  }
  withType(u.sequence.kv.dtype,
           [&]<DataType kType>() { addKeptValues<kType>(u, s, kvHead, all, range, scores, output); });
}

void attendSparsely(const AttentionUnit& u, const AttentionScratch& s, int64_t kvHead, Range all) {
  for (int64_t p = all.begin; p < all.end; p += kAttentionChunk) {
    const int64_t next = p + kAttentionChunk;
    if (next < all.end)
      prefetchRows(kvRow(u, next) + kvHead * u.headBytes, smaller(kAttentionChunk, all.end - next), u);
    scoreRows(u, s, kvHead, {kvRow(u, p), smaller(next, all.end) - p}, s.scores + (p - all.begin), s.scoreStride);
  }
  for (int64_t row = 0; row < s.rowsPerKvHead; ++row) attendRowSparsely(u, s, kvHead, row, all);
}
