// Prefill and decode attention of every cache type against a twin in double precision: paged and not, shared KV heads,
// windows.
#include <algorithm>
#include <cmath>

#include "test/cuda_kernels_test.h"

namespace flexplan::test {
namespace {

struct Sizes {
  int64_t heads, kvHeads, dim, window, past, queries;
};

// One sequence; the KV cache holds rows of all past and new positions.
struct AttentionCase {
  DataType type;
  Sizes sizes;
  int64_t qStride, outStride;
  size_t rowBytesOf;
  std::vector<float> q;
  Bytes rows;

  AttentionCase(Random& random, DataType dtype, const Sizes& s)
      : type(dtype), sizes(s), qStride(s.heads * s.dim + 2), outStride(s.heads * s.dim + 1),
        rowBytesOf(2 * index(s.kvHeads) * rowBytes(dtype, s.dim)), q(random.vector(s.queries * qStride, -3, 3)),
        rows(encode(dtype, random.vector(2 * (s.past + s.queries) * s.kvHeads * s.dim, -2, 2), s.dim)) {}

  int64_t positions() const { return sizes.past + sizes.queries; }

  // K (which = 0) or V (1) of one head and position, as stored.
  std::vector<float> stored(int64_t position, int64_t kvHead, int64_t which) const {
    const std::byte* row = rows.data() + index(position) * rowBytesOf;
    return decode(type, row + index(which * sizes.kvHeads + kvHead) * rowBytes(type, sizes.dim), sizes.dim);
  }
};

// The cache in pages of pageRows rows, the last one cut off behind its last row.
struct DeviceCache {
  std::vector<DeviceArray<std::byte>> pages;
  std::vector<const std::byte*> addresses;
  DeviceArray<const std::byte*> table;

  DeviceCache(const AttentionCase& c, int64_t pageRows, int64_t numRows)
      : pages(cut(c, pageRows, numRows)), addresses(begins()), table(addresses) {}

  static std::vector<DeviceArray<std::byte>> cut(const AttentionCase& c, int64_t pageRows, int64_t numRows) {
    std::vector<DeviceArray<std::byte>> pages;
    const auto bytes = static_cast<int64_t>(c.rowBytesOf);
    for (int64_t row = 0; row < numRows; row += pageRows)
      pages.emplace_back(
          Bytes(c.rows.begin() + row * bytes, c.rows.begin() + std::min(row + pageRows, numRows) * bytes));
    return pages;
  }
  std::vector<const std::byte*> begins() const {
    std::vector<const std::byte*> all;
    for (const auto& page : pages) all.push_back(page.data());
    return all;
  }
};

// Queries [first, first + count) of a case, as if the later ones did not exist yet.
struct Part {
  const AttentionCase* of;
  int64_t first, count;
};

// out of all parts in one launch, one after the other.
std::vector<float> run(const std::vector<Part>& parts, bool decode, int64_t pageRows) {
  const AttentionCase& model = *parts[0].of;
  std::vector<DeviceCache> caches;
  std::vector<DeviceArray<float>> queries, outputs;
  std::vector<cuda::AttentionSequence> sequences;
  int64_t mostQueries = 0, mostPositions = 0;
  for (const Part& part : parts) {
    const AttentionCase& c = *part.of;
    const int64_t past = c.sizes.past + part.first;
    caches.emplace_back(c, pageRows, past + part.count);
    const auto begin = c.q.begin() + part.first * c.qStride;
    queries.emplace_back(std::vector<float>(begin, begin + part.count * c.qStride));
    outputs.emplace_back(index(part.count * c.outStride), -7);
    sequences.push_back({caches.back().table.data(), queries.back().data(), outputs.back().data(),
                         static_cast<int32_t>(past), static_cast<int32_t>(part.count)});
    mostQueries = std::max(mostQueries, part.count);
    mostPositions = std::max(mostPositions, past + part.count);
  }
  const Sizes& s = model.sizes;
  const cuda::AttentionShape shape{s.heads,         s.kvHeads, s.dim,      model.qStride,
                                   model.outStride, s.window,  model.type, pageRows};
  const DeviceArray<cuda::AttentionSequence> device(sequences);
  const auto count = static_cast<int64_t>(sequences.size());
  if (decode) {
    const DeviceArray<std::byte> scratch(index(cuda::decodeAttentionScratchBytes(s.heads, s.dim, count, mostPositions)),
                                         std::byte{0xff});
    cuda::decodeAttention(nullptr, shape, device.data(), count, mostPositions, scratch.data());
  } else {
    cuda::prefillAttention(nullptr, shape, device.data(), count, mostQueries);
  }
  std::vector<float> all;
  for (const auto& output : outputs) {
    const auto values = output.values();
    all.insert(all.end(), values.begin(), values.end());
  }
  return all;
}

// Roundings to fp16 that the kernel makes on the way: none in decode, nor where the cache is not multiplied as fp16.
struct Roundings {
  double query = 0, key = 0, weight = 0, value = 0;

  Roundings(const AttentionCase& c, bool decode) {
    const bool halves = c.type == DataType::kInt4 || (c.type == DataType::kFloat16 && c.sizes.dim % 8 == 0);
    if (decode || !halves) return;
    query = weight = 0x1p-11;
    if (c.type == DataType::kInt4) key = value = 0x1p-11;
  }
};

bool headMatches(const AttentionCase& c, const Roundings& h, int64_t t, int64_t head, const float* out) {
  const Sizes& s = c.sizes;
  const int64_t kvHead = head / (s.heads / s.kvHeads), own = s.past + t;
  const int64_t begin = s.window > 0 ? std::max<int64_t>(0, own - s.window + 1) : 0;
  const double root = std::sqrt(static_cast<double>(s.dim));
  std::vector<double> scores, result(index(s.dim)), size(index(s.dim)), plain(index(s.dim));
  double scoreError = 0, sum = 0;
  for (int64_t p = begin; p <= own; ++p) {
    const auto key = c.stored(p, kvHead, 0);
    double score = 0, magnitude = 0;
    for (int64_t d = 0; d < s.dim; ++d) {
      const double product = c.q[index(t * c.qStride + head * s.dim + d)] * static_cast<double>(key[index(d)]);
      score += product;
      magnitude += std::abs(product);
    }
    scores.push_back(score / root);
    // The scaling of q and the subtraction of the maximum, and the dot product's sum.
    const double relative = (2 * static_cast<double>(s.dim) + 8) * kU + h.query + h.key;
    scoreError = std::max(scoreError, relative * magnitude / root);
  }
  const double highest = *std::max_element(scores.begin(), scores.end());
  for (int64_t p = begin; p <= own; ++p) {
    const auto value = c.stored(p, kvHead, 1);
    const double weight = std::exp(scores[index(p - begin)] - highest);
    sum += weight;
    for (int64_t d = 0; d < s.dim; ++d) {
      result[index(d)] += weight * value[index(d)];
      size[index(d)] += weight * std::abs(value[index(d)]);
      plain[index(d)] += std::abs(value[index(d)]);
    }
  }
  // Numerator and denominator: each weight is off by its score's error and the exponential's few u, each sum by its
  // depth.
  const double relative =
      2 * (2 * scoreError + 8 * kU + static_cast<double>(own - begin + 8) * 2 * kU) + h.weight + h.value;
  for (int64_t d = 0; d < s.dim; ++d) {
    // Weights below 2^-14 are rounded to multiples of 2^-24.
    const double tolerance = (relative * size[index(d)] + (h.weight > 0 ? 0x1p-25 * plain[index(d)] : 0)) / sum;
    if (!(std::abs(out[d] - result[index(d)] / sum) <= tolerance)) return false;
  }
  return true;
}

bool matchesTwin(const AttentionCase& c, bool decode, const std::vector<float>& out) {
  const Roundings roundings(c, decode);
  for (int64_t t = 0; t < c.sizes.queries; ++t)
    for (int64_t h = 0; h < c.sizes.heads; ++h)
      if (!headMatches(c, roundings, t, h, out.data() + t * c.outStride + h * c.sizes.dim)) return false;
  return true;
}

std::string name(const char* op, const AttentionCase& c) {
  const Sizes& s = c.sizes;
  return named(op, c.type, {s.heads, s.kvHeads, s.dim, s.window, s.past, s.queries});
}

const Sizes kPrefill[] = {{1, 1, 8, 0, 0, 1},     {2, 2, 64, 0, 0, 70},    {4, 2, 80, 0, 130, 2},
                          {8, 2, 128, 0, 63, 20}, {6, 1, 96, 0, 64, 1},    {10, 2, 20, 0, 7, 30},
                          {4, 4, 64, 5, 100, 40}, {4, 1, 72, 70, 150, 50}, {3, 3, 33, 1, 2, 66},
                          {2, 1, 256, 0, 60, 40}, {16, 2, 16, 17, 300, 9}, {12, 4, 24, 100, 0, 7},
                          {2, 2, 160, 3, 0, 35}};
const Sizes kDecode[] = {{1, 1, 8, 0, 0, 1},      {4, 2, 80, 0, 130, 1},   {6, 1, 96, 0, 64, 1},
                         {8, 8, 128, 0, 200, 1},  {2, 1, 256, 64, 64, 1},  {5, 5, 100, 0, 500, 1},
                         {32, 4, 16, 17, 300, 1}, {3, 3, 33, 0, 255, 1},   {8, 1, 64, 0, 256, 1},
                         {4, 4, 64, 300, 900, 1}, {12, 2, 128, 0, 600, 1}, {7, 1, 20, 5, 257, 1}};

void testValues(Checks& checks) {
  Random random(30);
  for (const bool decode : {false, true})
    for (const DataType type : kTypes)
      for (const Sizes& s : decode ? std::vector<Sizes>(std::begin(kDecode), std::end(kDecode))
                                   : std::vector<Sizes>(std::begin(kPrefill), std::end(kPrefill))) {
        const AttentionCase c(random, type, s);
        const std::string what = name(decode ? "decodeAttention" : "prefillAttention", c);
        const Part whole{&c, 0, s.queries};
        const auto out = inEveryOrder(checks, what, [&] { return run({whole}, decode, cuda::kWholeSequence); });
        checks.that(matchesTwin(c, decode, out), what);
        const int64_t pageRows = int64_t{1} << random.below(7);
        checks.that(sameBits(out, run({whole}, decode, pageRows)), what + " in pages of " + std::to_string(pageRows));
      }
}

// A prompt in parts, and many sequences in one launch: the same bits as each alone.
void testBits(Checks& checks) {
  Random random(31);
  for (const DataType type : kTypes) {
    const AttentionCase c(random, type, {8, 4, 64, 40, 30, 50});
    const auto all = run({{&c, 0, 50}}, false, 16);
    std::vector<float> parts;
    for (int64_t t = 0; t < 50; t += 20) {
      const auto part = run({{&c, t, std::min<int64_t>(20, 50 - t)}}, false, 16);
      parts.insert(parts.end(), part.begin(), part.end());
    }
    checks.that(sameBits(all, parts), named("attention in parts", type, {20}));
    for (const bool decode : {true, false}) {
      std::vector<AttentionCase> cases;
      for (int i = 0; i < 6; ++i)
        cases.emplace_back(random, type, Sizes{8, 4, 64, 0, random.below(600), decode ? 1 : 1 + random.below(40)});
      std::vector<Part> together;
      std::vector<float> alone;
      for (const AttentionCase& one : cases) {
        together.push_back({&one, 0, one.sizes.queries});
        const auto out = run({together.back()}, decode, 64);
        alone.insert(alone.end(), out.begin(), out.end());
      }
      // A sequence that takes no part.
      together.push_back({&cases[0], 0, 0});
      checks.that(sameBits(alone, run(together, decode, 64)), named("attention batch", type, {decode}));
    }
  }
}

// A NaN behind the newest position cannot reach it.
void testUnseen(Checks& checks) {
  Random random(32);
  for (const DataType type : {DataType::kFloat16, DataType::kInt4}) {
    AttentionCase c(random, type, {4, 2, 64, 0, 30, 20});
    const auto before = run({{&c, 0, 10}}, false, 64);
    std::fill(c.rows.begin() + 40 * static_cast<int64_t>(c.rowBytesOf), c.rows.end(), std::byte{0xff});
    checks.that(sameBits(before, run({{&c, 0, 10}}, false, 64)), named("attention sees nothing later", type, {}));
    const auto all = run({{&c, 0, 20}}, false, 64);
    checks.that(std::isnan(all[index(19 * c.outStride)]), named("attention: the last query sees all", type, {}));
  }
}

// Nor a NaN before the chunk of cpu::kAttentionChunk positions in which a window begins: those rows need not be there.
void testBeforeWindow(Checks& checks) {
  Random random(33);
  for (const DataType type : kTypes)
    for (const int64_t dim : {64, 160})
      for (const bool decode : {true, false})
        for (const int64_t past : {63, 130, 300}) {
          AttentionCase c(random, type, {4, 2, dim, 40, past, decode ? 1 : 30});
          const Part whole{&c, 0, c.sizes.queries};
          const auto before = run({whole}, decode, 64);
          const int64_t row = (past + 1 - 40) / 64 * 64;
          std::fill(c.rows.begin(), c.rows.begin() + row * static_cast<int64_t>(c.rowBytesOf), std::byte{0xff});
          checks.that(sameBits(before, run({whole}, decode, 64)),
                      named("attention sees nothing before its window", type, {dim, past}));
        }
}

}  // namespace

void testAttention(Checks& checks) {
  testValues(checks);
  testBits(checks);
  testUnseen(checks);
  testBeforeWindow(checks);
}

}  // namespace flexplan::test
