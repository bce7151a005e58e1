// Attention of the CPU against a slow twin in double precision, and bit for bit however it is launched.
#include <cmath>
#include <numeric>
#include <tuple>
#include <utility>

#include "test/kernels_test.h"

namespace flexplan::test {
namespace {

struct AttentionCase {
  DataType type;
  cpu::AttentionShape shape;
  int64_t past, queries;
  std::vector<float> q, k, v;
  Bytes rows;                 // K and V as the engine stores them
  std::vector<float> stored;  // and what that is worth: [past + queries, K then V, numKvHeads, headDim]
  bool exactScores = false;   // the engine's scores have no rounding errors

  AttentionCase(Random& random, ThreadPool& pool, DataType dtype, int64_t heads, int64_t kvHeads, int64_t dim,
                int64_t window, int64_t numPast, int64_t numQueries)
      : type(dtype), shape{heads, kvHeads, dim, heads * dim + 2, heads * dim + 1, window}, past(numPast),
        queries(numQueries), q(random.vector(numQueries * shape.qStride, -3, 3)),
        k(random.vector((numPast + numQueries) * kvHeads * dim, -2, 2)),
        v(random.vector((numPast + numQueries) * kvHeads * dim)) {
    storeRows(pool);
  }

  void storeRows(ThreadPool& pool) {
    rows.resize(index(past + queries) * rowBytesOf());
    const cpu::KvRun all{rows.data(), past + queries};
    const int64_t stride = shape.numKvHeads * shape.headDim;
    cpu::storeKvRows(pool, {type, k.data(), v.data(), stride, shape.numKvHeads, shape.headDim}, {&all, 1});
    stored = decodeRows(type, rows, shape.headDim);
  }

  // Queries [first, first + count), as if the later ones did not exist yet. pageRows == 0: the KV rows in one page.
  std::vector<float> run(ThreadPool& pool, int64_t first, int64_t count, int64_t pageRows = 0) const {
    std::vector<float> out(index(count * shape.outStride), -7);
    // Exactly the rows that may be read, and the pages in no order of addresses.
    const int64_t numRows = past + first + count;
    const int64_t rowsPerPage = pageRows > 0 ? pageRows : numRows;
    const int64_t numPages = (numRows + rowsPerPage - 1) / rowsPerPage;
    std::vector<Bytes> seen(index(numPages));
    std::vector<const std::byte*> pages(index(numPages));
    for (int64_t n = numPages - 1; n >= 0; --n) {
      const auto bytes = [&](int64_t row) {
        return rows.begin() + std::min(row, numRows) * static_cast<int64_t>(rowBytesOf());
      };
      seen[index(n)].assign(bytes(n * rowsPerPage), bytes((n + 1) * rowsPerPage));
      pages[index(n)] = seen[index(n)].data();
    }
    const cpu::AttentionSequence sequence{
        {pages.data(), rowsPerPage, type}, past + first, count, q.data() + first * shape.qStride, out.data()};
    cpu::attention(pool, shape, {&sequence, 1});
    return out;
  }
  size_t rowBytesOf() const { return cpu::kvRowBytes(type, shape.numKvHeads, shape.headDim); }

  // K (which = 0) or V (1) of one head and position.
  const float* storedHead(int64_t position, int64_t kvHead, int64_t which) const {
    return stored.data() + ((position * 2 + which) * shape.numKvHeads + kvHead) * shape.headDim;
  }

  bool matchesTwin(const std::vector<float>& out) const {
    for (int64_t t = 0; t < queries; ++t)
      for (int64_t h = 0; h < shape.numHeads; ++h)
        if (!headMatches(t, h, out.data() + t * shape.outStride + h * shape.headDim)) return false;
    return true;
  }

  // Of the positions that the query attends to, `begin` first.
  struct Scores {
    int64_t begin;
    std::vector<double> values;
    double error = 0;  // of the engine's
  };
  Scores scoresOf(int64_t t, int64_t h) const {
    const int64_t kvHead = h / (shape.numHeads / shape.numKvHeads), own = past + t;
    Scores scores{shape.slidingWindow > 0 ? std::max<int64_t>(0, own - shape.slidingWindow + 1) : 0, {}};
    const double root = std::sqrt(static_cast<double>(shape.headDim));
    for (int64_t p = scores.begin; p <= own; ++p) {
      const float* key = storedHead(p, kvHead, 0);
      double score = 0, magnitude = 0;
      for (int64_t d = 0; d < shape.headDim; ++d) {
        const double product = q[index(t * shape.qStride + h * shape.headDim + d)] * static_cast<double>(key[d]);
        score += product;
        magnitude += std::abs(product);
      }
      scores.values.push_back(score / root);
      // The dot product's sum, the scaling of q, the subtraction of the maximum.
      scores.error = std::max(scores.error, (sumDepth(shape.headDim) + 4) * kU * magnitude / root);
    }
    return scores;
  }

  // Which of the scores take part, and which are so near to the last of them that rounding may decide otherwise.
  struct Kept {
    std::vector<bool> kept, doubtful;
  };
  Kept keptOf(const Scores& scores) const {
    const size_t size = scores.values.size();
    const auto count =
        std::min(size, static_cast<size_t>(std::ceil(shape.sparseValueFraction * static_cast<double>(size))));
    std::vector<size_t> order(size);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return scores.values[a] > scores.values[b]; });
    Kept result{std::vector<bool>(size), std::vector<bool>(size)};
    for (size_t i = 0; i < count; ++i) result.kept[order[i]] = true;
    if (count == size || exactScores) return result;
    const double last = scores.values[order[count - 1]], next = scores.values[order[count]];
    if (last - next > 2 * scores.error) return result;
    for (size_t i = 0; i < size; ++i) result.doubtful[i] = std::abs(scores.values[i] - last) <= 4 * scores.error;
    return result;
  }

  bool headMatches(int64_t t, int64_t h, const float* out) const {
    const Scores scores = scoresOf(t, h);
    const Kept positions = keptOf(scores);
    std::vector<double> result(index(shape.headDim)), size(index(shape.headDim)), doubt(index(shape.headDim));
    const double highest = *std::max_element(scores.values.begin(), scores.values.end());
    double sum = 0;
    for (size_t i = 0; i < scores.values.size(); ++i) {
      const int64_t kvHead = h / (shape.numHeads / shape.numKvHeads);
      const float* value = storedHead(scores.begin + static_cast<int64_t>(i), kvHead, 1);
      const double weight = std::exp(scores.values[i] - highest);
      sum += weight;
      const double kept = positions.kept[i] ? weight : 0, doubtful = positions.doubtful[i] ? weight : 0;
      if (kept == 0 && doubtful == 0) continue;
      for (int64_t d = 0; d < shape.headDim; ++d) {
        result[index(d)] += kept * value[d];
        size[index(d)] += kept * std::abs(value[d]);
        doubt[index(d)] += doubtful * std::abs(value[d]);
      }
    }
    // Numerator and denominator: each weight is off by its score's error and the exponential's few u, each sum by its
    // depth.
    const double relative = 2 * (2 * scores.error + 8 * kU + static_cast<double>(scores.values.size() + 7) * kU);
    for (int64_t d = 0; d < shape.headDim; ++d)
      if (!(std::abs(out[d] - result[index(d)] / sum) <= (relative * size[index(d)] + doubt[index(d)]) / sum))
        return false;
    return true;
  }
};

// q and K such that fp32 scores are exact and often equal, in every dtype: q in eighths, K whole numbers whose 4-bit
// grid is that of the whole numbers. sqrt(dim) must be a power of two.
AttentionCase exactCase(Random& random, ThreadPool& pool, DataType dtype, int64_t heads, int64_t kvHeads, int64_t dim,
                        int64_t window, int64_t numPast, int64_t numQueries) {
  AttentionCase c(random, pool, dtype, heads, kvHeads, dim, window, numPast, numQueries);
  for (float& x : c.q) x = static_cast<float>(random.below(3) - 1) / 8;
  for (size_t i = 0; i < c.k.size(); ++i) {
    const size_t column = i % index(dim) % 64;
    c.k[i] = column < 2 ? (column == 0 ? -8.0f : 7.0f) : static_cast<float>(random.below(16) - 8);
  }
  c.storeRows(pool);
  c.exactScores = true;
  return c;
}

// Head after head what fromFloat makes of each token, in runs of any length, for any number of threads.
void testStoreKvRows(Checks& checks) {
  Random random(15);
  constexpr int64_t kKvHeads = 3, kDim = 72, kStride = kKvHeads * kDim + 5;
  const std::vector<int64_t> lengths{1, 0, 130, 1, 64, 7};
  const int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  const auto k = random.vector(tokens * kStride, -2, 2), v = random.vector(tokens * kStride);
  for (const DataType type : kTypes) {
    ThreadPool one(1);
    const size_t head = rowBytes(type, kDim);
    Bytes expected;
    for (int64_t t = 0; t < tokens; ++t)
      for (const float* values : {k.data() + t * kStride, v.data() + t * kStride})
        for (int64_t h = 0; h < kKvHeads; ++h) {
          expected.resize(expected.size() + head);
          cpu::fromFloat(one, type, values + h * kDim, 1, kDim, expected.data() + expected.size() - head);
        }
    for (int threads = 1; threads <= 4; ++threads) {
      ThreadPool pool(threads);
      std::vector<Bytes> written;
      for (const int64_t length : lengths) written.emplace_back(index(length) * cpu::kvRowBytes(type, kKvHeads, kDim));
      std::vector<cpu::KvRun> runs;
      for (size_t n = 0; n < lengths.size(); ++n) runs.push_back({written[n].data(), lengths[n]});
      cpu::storeKvRows(pool, {type, k.data(), v.data(), kStride, kKvHeads, kDim}, runs);
      Bytes all;
      for (const Bytes& run : written) all.insert(all.end(), run.begin(), run.end());
      checks.that(all == expected, named("storeKvRows in runs", type, {threads}));
    }
  }
}

// The twin's values, and the same bits however the queries are launched and the rows lie.
void checkAttention(Checks& checks, ThreadPool& pool, const AttentionCase& c, const std::string& name) {
  const std::vector<float> out = c.run(pool, 0, c.queries);
  checks.that(c.matchesTwin(out), name);
  for (const int64_t count : {1, 2, 5, 64}) {
    if (count > c.queries) continue;
    std::vector<float> parts;
    for (int64_t t = 0; t < c.queries; t += count) {
      const auto part = c.run(pool, t, std::min(count, c.queries - t));
      parts.insert(parts.end(), part.begin(), part.end());
    }
    checks.that(sameBits(out, parts), name + " in parts of " + std::to_string(count));
  }
  for (const int64_t pages : {1, 3})
    checks.that(sameBits(out, c.run(pool, 0, c.queries, pages * cpu::kAttentionChunk)),
                name + " with chunks per page: " + std::to_string(pages));
}

void testAttention(Checks& checks, ThreadPool& pool) {
  Random random(10);
  struct Sizes {
    int64_t heads, kvHeads, dim, window, past, queries;
  };
  const std::vector<Sizes> all{{1, 1, 8, 0, 0, 1},     {2, 2, 64, 0, 0, 70},    {4, 2, 80, 0, 130, 1},
                               {8, 2, 128, 0, 63, 3},  {6, 1, 96, 0, 64, 1},    {10, 2, 20, 0, 7, 129},
                               {4, 4, 64, 5, 100, 40}, {4, 1, 72, 70, 150, 90}, {8, 8, 128, 0, 200, 1},
                               {3, 3, 33, 1, 2, 66},   {16, 2, 64, 0, 0, 65},   {2, 1, 256, 64, 64, 1},
                               {12, 4, 24, 100, 0, 7}, {5, 5, 100, 0, 500, 1},  {32, 4, 16, 17, 300, 2}};
  for (const DataType type : kTypes)
    for (const Sizes& s : all)
      for (const double fraction : {1.0, 0.1}) {
        AttentionCase c(random, pool, type, s.heads, s.kvHeads, s.dim, s.window, s.past, s.queries);
        c.shape.sparseValueFraction = fraction;
        const std::string kind = fraction < 1 ? "sparse attention" : "attention";
        checkAttention(checks, pool, c, named(kind, type, {s.heads, s.kvHeads, s.dim, s.window, s.past, s.queries}));
      }
}

// Of equal scores the lower positions take part, and no V is read but that of positions that take part.
void testSparseAttention(Checks& checks, ThreadPool& pool) {
  Random random(13);
  for (const DataType type : kTypes)
    for (const double fraction : {1e-9, 0.07, 0.1, 0.5, 0.999}) {
      const std::string name = "exact scores, fraction " + std::to_string(fraction);
      for (const int64_t dim : {16, 64, 256})
        for (const int64_t window : {0, 90}) {
          AttentionCase c = exactCase(random, pool, type, 4, 2, dim, window, 150, 20);
          c.shape.sparseValueFraction = fraction;
          checkAttention(checks, pool, c, named(name, type, {dim, window}));
        }
      AttentionCase c = exactCase(random, pool, type, 3, 3, 64, 0, 300, 1);
      c.shape.sparseValueFraction = fraction;
      const std::vector<float> before = c.run(pool, 0, 1);
      for (int64_t h = 0; h < 3; ++h) {
        const auto kept = c.keptOf(c.scoresOf(0, h)).kept;
        for (int64_t p = 0; p < 301; ++p) {
          const auto v =
              c.rows.begin() + static_cast<int64_t>(index(p) * c.rowBytesOf() + index(3 + h) * rowBytes(type, 64));
          if (!kept[index(p)]) std::fill(v, v + static_cast<int64_t>(rowBytes(type, 64)), std::byte{0xff});
        }
      }
      checks.that(sameBits(before, c.run(pool, 0, 1)), named(name + ", V of others spoiled", type, {}));
    }
}

// Many sequences of different kinds in one launch: the same bits as each alone, for any number of threads.
void testAttentionBatch(Checks& checks) {
  Random random(11);
  ThreadPool one(1);
  for (const DataType type : kTypes)
    for (const auto& [decodeOnly, fraction] : {std::pair{true, 1.0}, {false, 1.0}, {true, 0.2}, {false, 0.2}}) {
      std::vector<AttentionCase> cases;
      for (int i = 0; i < 9; ++i) {
        cases.emplace_back(random, one, type, 8, 4, 64, 0, random.below(200), decodeOnly ? 1 : 1 + random.below(40));
        cases.back().shape.sparseValueFraction = fraction;
      }
      for (int threads = 1; threads <= 4; ++threads) {
        ThreadPool pool(threads);
        std::vector<std::vector<float>> outputs;
        std::vector<cpu::AttentionSequence> sequences;
        for (const AttentionCase& c : cases) outputs.emplace_back(index(c.queries * c.shape.outStride), -7.0f);
        std::vector<const std::byte*> pages;
        for (const AttentionCase& c : cases) pages.push_back(c.rows.data());
        for (size_t i = 0; i < cases.size(); ++i)
          sequences.push_back({{&pages[i], cases[i].past + cases[i].queries, type},
                               cases[i].past,
                               cases[i].queries,
                               cases[i].q.data(),
                               outputs[i].data()});
        cpu::attention(pool, cases[0].shape, sequences);
        bool same = true;
        for (size_t i = 0; i < cases.size(); ++i) same &= sameBits(outputs[i], cases[i].run(one, 0, cases[i].queries));
        checks.that(same,
                    named(fraction < 1 ? "sparse attention batch" : "attention batch", type, {threads, decodeOnly}));
      }
    }
}

// What a query must not see cannot reach it, not even a NaN.
void testAttentionCausality(Checks& checks, ThreadPool& pool) {
  Random random(12);
  AttentionCase c(random, pool, DataType::kFloat16, 8, 2, 64, 0, 30, 20);
  const std::vector<float> before = c.run(pool, 0, 20);
  const size_t stride = c.rowBytesOf();
  std::fill(c.rows.end() - static_cast<int64_t>(stride), c.rows.end(), std::byte{0xff});
  const std::vector<float> after = c.run(pool, 0, 20);
  const auto last = static_cast<int64_t>(before.size()) - c.shape.outStride;
  checks.that(std::equal(before.begin(), before.begin() + last, after.begin()), named("causality", c.type, {}));
  checks.that(std::isnan(after[index(last)]), named("causality: the last query does see it", c.type, {}));
}

// Rows before a window are never added, not even as a NaN: they need not be there.
void testAttentionWindow(Checks& checks, ThreadPool& pool) {
  Random random(14);
  for (const DataType type : kTypes)
    for (const auto& [window, past, queries] :
         {std::tuple{1, 64, 1}, {5, 63, 1}, {9, 200, 1}, {70, 300, 1}, {64, 127, 12}, {17, 130, 70}})
      for (const double fraction : {1.0, 0.3}) {
        AttentionCase c(random, pool, type, 8, 2, 72, window, past, queries);
        c.shape.sparseValueFraction = fraction;
        const std::vector<float> before = c.run(pool, 0, queries);
        const auto end = c.rows.begin() + static_cast<int64_t>(index(past + 1 - window) * c.rowBytesOf());
        std::fill(c.rows.begin(), end, std::byte{0xff});
        checks.that(sameBits(before, c.run(pool, 0, queries)),
                    named("rows before a window spoiled", type, {window, past, queries}));
        std::fill(end, end + static_cast<int64_t>(c.rowBytesOf()), std::byte{0xff});
        checks.that(!sameBits(before, c.run(pool, 0, queries)),
                    named("its first row spoiled", type, {window, past, queries}));
      }
}

}  // namespace

void testAttentionKernels(Checks& checks, ThreadPool& pool) {
  testStoreKvRows(checks);
  testAttention(checks, pool);
  testAttentionBatch(checks);
  testAttentionCausality(checks, pool);
  testAttentionWindow(checks, pool);
}

void testSparseAttentionKernels(Checks& checks, ThreadPool& pool) { testSparseAttention(checks, pool); }

}  // namespace flexplan::test
