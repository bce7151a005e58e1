// 4-bit quantization, part of kernels-inl.h: the same bytes as quantizeInt4 and fitInt4 (quant/).

inline Vec nearestPoint(Vec steps) { return round(min(set1(kMaxInt4), max(zero(), steps))); }

void encodeGroup(const float* values, const Int4Range& range, std::byte* group) {
  Vec q[kGroupVecs];
  for (int i = 0; i < kGroupVecs; ++i) {
    const Vec steps = div(sub(load(values + i * kLanes), set1(range.min)), set1(range.scale));
    q[i] = range.scale == 0 ? zero() : nearestPoint(steps);
  }
  __builtin_memcpy(group, &range.scaleBits, 2);
  __builtin_memcpy(group + 2, &range.minBits, 2);
  packNibbles(q, group + kInt4HeaderBytes);
}

void quantizeGroup(const float* values, std::byte* group) {
  Vec lowest = load(values), highest = lowest;
  for (int i = 1; i < kGroupVecs; ++i) {
    lowest = min(lowest, load(values + i * kLanes));
    highest = max(highest, load(values + i * kLanes));
  }
  encodeGroup(values, int4Range(minLane(lowest), maxLane(highest)), group);
}

void quantizeRow(const float* row, int64_t cols, std::byte* out) {
  for (; cols >= kGroup; cols -= kGroup, row += kGroup, out += kInt4GroupBytes) quantizeGroup(row, out);
  if (cols == 0) return;
  float last[kGroup];
  for (int64_t i = 0; i < kGroup; ++i) last[i] = row[smaller(i, cols - 1)];
  quantizeGroup(last, out);
}

// ---- The fit: each lane searches in a group of its own --------------------------------------------------------------

struct FitLine {
  Vec start, step;
  Vec explained;
};

// The least-squares line of the points that `line` gives to x.
inline FitLine refit(const Vec x[kGroup], Vec sumX, const FitLine& line) {
  const Vec stepsPerX = div(set1(1), line.step), count = set1(kGroup);
  Vec sum = zero(), squares = zero(), products = zero();
  for (int64_t i = 0; i < kGroup; ++i) {
    const Vec q = nearestPoint(mul(sub(x[i], line.start), stepsPerX));
    sum = add(sum, q);
    squares = add(squares, mul(q, q));
    products = add(products, mul(q, x[i]));
  }
  const Vec covariance = sub(mul(count, products), mul(sum, sumX));
  const Vec step = div(covariance, sub(mul(count, squares), mul(sum, sum)));
  return {div(sub(sumX, mul(step, sum)), count), step, mul(covariance, step)};
}

inline void considerLine(const Vec x[kGroup], Vec sumX, const FitLine& from, FitLine& best) {
  const FitLine line = refit(x, sumX, from);
  const Vec loses = sub(best.explained, line.explained);
  best.start = ifNegative(loses, line.start, best.start);
  best.step = ifNegative(loses, line.step, best.step);
  best.explained = ifNegative(loses, line.explained, best.explained);
}

inline FitLine searchLine(const Vec x[kGroup]) {
  Vec sumX = zero();
  for (int64_t i = 0; i < kGroup; ++i) sumX = add(sumX, x[i]);
  FitLine best{zero(), zero(), zero()};
  for (const float low : kInt4FitCuts)
    for (const float high : kInt4FitCuts) {
      const float step = (kMaxInt4 - low - high) / (kMaxInt4 * kMaxInt4);
      considerLine(x, sumX, {set1(low / kMaxInt4), set1(step), zero()}, best);
    }
  for (int i = 0; i < kInt4FitRefinements; ++i) considerLine(x, sumX, best, best);
  return best;
}

// A grid for each lane.
struct LaneRanges {
  Int4Range range[kLanes];
  float min[kLanes], scale[kLanes];

  void set(int lane, const Int4Range& to) {
    range[lane] = to;
    min[lane] = to.min;
    scale[lane] = to.scale;
  }
};

inline Vec squaredError(const Vec v[kGroup], const LaneRanges& grid) {
  const Vec start = load(grid.min), scale = load(grid.scale);
  Vec sum = zero();
  for (int64_t i = 0; i < kGroup; ++i) {
    const Vec decoded = add(mul(nearestPoint(div(sub(v[i], start), scale)), scale), start);
    const Vec error = sub(v[i], decoded);
    sum = add(sum, mul(error, error));
  }
  return sum;
}

// v[i] lane l = value i of group l; groups beyond the last one repeat it.
inline void loadGroups(const float* values, int64_t numGroups, Vec v[kGroup]) {
  for (int64_t i = 0; i < kGroup; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane)
      v[i + lane] = load(values + smaller(lane, numGroups - 1) * kGroup + i);
    transpose(v + i);
  }
}

inline LaneRanges plainRanges(const float lowest[kLanes], const float highest[kLanes]) {
  LaneRanges plain;
  for (int lane = 0; lane < kLanes; ++lane) plain.set(lane, int4Range(lowest[lane], highest[lane]));
  return plain;
}

// plain: the grids of lanes where there is nothing to search.
LaneRanges fittedRanges(const Vec v[kGroup], const float lowest[kLanes], const float highest[kLanes],
                        const LaneRanges& plain) {
  float scales[kLanes], starts[kLanes], steps[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) scales[lane] = int4FitScale(lowest[lane], highest[lane]);
  const Vec scale = load(scales), low = load(lowest);
  Vec x[kGroup];
  for (int64_t i = 0; i < kGroup; ++i) x[i] = mul(sub(v[i], low), scale);
  const FitLine line = searchLine(x);
  store(starts, add(low, div(line.start, scale)));
  store(steps, div(line.step, scale));
  LaneRanges fitted = plain;
  for (int lane = 0; lane < kLanes; ++lane)
    if (scales[lane] != 0) fitted.set(lane, nearestInt4Range(starts[lane], steps[lane]));
  return fitted;
}

// The first min(numGroups, kLanes) groups.
void fitGroups(const float* values, int64_t numGroups, std::byte* out) {
  Vec v[kGroup];
  loadGroups(values, numGroups, v);
  Vec low = v[0], high = v[0];
  for (const Vec& value : v) {
    low = min(low, value);
    high = max(high, value);
  }
  float lowest[kLanes], highest[kLanes], plainErrors[kLanes], fittedErrors[kLanes];
  store(lowest, low);
  store(highest, high);
  const LaneRanges plain = plainRanges(lowest, highest), fitted = fittedRanges(v, lowest, highest, plain);
  store(plainErrors, squaredError(v, plain));
  store(fittedErrors, squaredError(v, fitted));
  for (int64_t lane = 0; lane < smaller(kLanes, numGroups); ++lane) {
    const bool better = fittedErrors[lane] * kInt4FitMargin < plainErrors[lane];
    encodeGroup(values + lane * kGroup, (better ? fitted : plain).range[lane], out + lane * kInt4GroupBytes);
  }
}

void fitInt4(const float* row, int64_t cols, std::byte* out) {
  const int64_t whole = cols / kGroup;
  for (int64_t group = 0; group < whole; group += kLanes)
    fitGroups(row + group * kGroup, whole - group, out + group * kInt4GroupBytes);
  quantizeRow(row + whole * kGroup, cols % kGroup, out + whole * kInt4GroupBytes);
}
