// Mixtures of experts: the table of routing against a twin that sorts in double precision, products and sums by that
// table against double precision. The CPU's routing is held to the same twin.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "test/cuda_kernels_test.h"

namespace flexplan::test {
namespace {

using cpu::ExpertRows;
using cpu::Routing;

struct Table {
  std::vector<int32_t> ends, tokens, experts, rows;
  std::vector<float> weights;

  bool samePlaces(const Table& other) const {
    return ends == other.ends && tokens == other.tokens && experts == other.experts && rows == other.rows;
  }
};

struct Score {
  double value;
  int32_t expert;
  bool operator<(const Score& other) const {
    return value != other.value ? value > other.value : expert < other.expert;
  }
};

// weights: in double precision, rounded once.
Table twinOf(const std::vector<float>& scores, int64_t tokens, const Routing& routing) {
  Table table;
  const size_t active = index(routing.numActive);
  for (int64_t t = 0; t < tokens; ++t) {
    std::vector<Score> sorted;
    for (int64_t e = 0; e < routing.numExperts; ++e) {
      const double value = scores[index(t * routing.numExperts + e)];
      sorted.push_back({std::isnan(value) ? -std::numeric_limits<double>::infinity() : value, static_cast<int32_t>(e)});
    }
    std::sort(sorted.begin(), sorted.end());
    const double highest = sorted.front().value;
    double sum = 0;
    for (size_t n = 0; n < (routing.normalize ? active : sorted.size()); ++n)
      sum += std::exp(sorted[n].value - highest);
    sorted.resize(active);
    std::sort(sorted.begin(), sorted.end(), [](const Score& a, const Score& b) { return a.expert < b.expert; });
    for (const Score& chosen : sorted) {
      table.experts.push_back(chosen.expert);
      table.weights.push_back(static_cast<float>(std::exp(chosen.value - highest) / sum));
    }
  }
  table.rows.resize(table.experts.size());
  for (int32_t e = 0; e < routing.numExperts; ++e) {
    for (size_t i = 0; i < table.experts.size(); ++i) {
      if (table.experts[i] != e) continue;
      table.rows[i] = static_cast<int32_t>(table.tokens.size());
      table.tokens.push_back(static_cast<int32_t>(i / active));
    }
    table.ends.push_back(static_cast<int32_t>(table.tokens.size()));
  }
  return table;
}

// On a device, from a table on the host.
struct DeviceTable {
  DeviceArray<int32_t> ends, tokens, experts, rows;
  DeviceArray<float> weights;

  DeviceTable(const Table& table)
      : ends(table.ends), tokens(table.tokens), experts(table.experts), rows(table.rows), weights(table.weights) {}
  ExpertRows view() const { return {ends.data(), tokens.data(), experts.data(), rows.data(), weights.data()}; }
  Table values() const { return {ends.values(), tokens.values(), experts.values(), rows.values(), weights.values()}; }
};

Table emptyTable(int64_t tokens, const Routing& routing) {
  const std::vector<int32_t> garbage(index(tokens * routing.numActive), -7);
  return {std::vector<int32_t>(index(routing.numExperts), -7), garbage, garbage, garbage,
          std::vector<float>(garbage.size(), -7)};
}

Table routeOnDevice(const std::vector<float>& scores, int64_t tokens, const Routing& routing) {
  const DeviceTable table(emptyTable(tokens, routing));
  cuda::route(nullptr, DeviceArray<float>(scores).data(), tokens, routing, table.view());
  return table.values();
}

Table routeOnCpu(const std::vector<float>& scores, int64_t tokens, const Routing& routing) {
  Table table = emptyTable(tokens, routing);
  cpu::route(scores.data(), tokens, routing,
             {table.ends.data(), table.tokens.data(), table.experts.data(), table.rows.data(), table.weights.data()});
  return table;
}

// A weight is off by the exponent's rounding, which is u |score - highest|, the exponential's few u, and a sum of
// positive terms.
bool weightsMatch(const Table& table, const Table& twin, const Routing& routing, double spread) {
  const double relative = (spread + static_cast<double>(routing.numExperts) + 16) * 2 * kU;
  for (size_t i = 0; i < twin.weights.size(); ++i)
    if (!(std::abs(table.weights[i] - twin.weights[i]) <= relative * twin.weights[i] + 0x1p-126)) return false;
  return true;
}

void testRoute(Checks& checks) {
  Random random(40);
  for (const auto& [tokens, experts, active] :
       {std::array<int64_t, 3>{1, 8, 2}, {37, 8, 2}, {1100, 8, 2}, {5, 4, 4}, {33, 1, 1}, {70, 60, 4}, {3, 128, 8}})
    for (const bool normalize : {true, false})
      for (const float spread : {20.0f, 1.0f}) {
        const Routing routing{experts, active, normalize};
        auto scores = random.vector(tokens * experts, -spread, spread);
        // Many equals.
        if (spread == 1) for (float& score : scores) score = std::round(score * 2);
        const Table twin = twinOf(scores, tokens, routing);
        const std::string name =
            named("route", DataType::kFloat32, {tokens, experts, active, normalize, static_cast<int64_t>(spread)});
        forEachOrder([&, tokens = tokens] {
          const Table table = routeOnDevice(scores, tokens, routing);
          checks.that(table.samePlaces(twin), name + ": places");
          checks.that(weightsMatch(table, twin, routing, 2 * spread), name + ": weights");
        });
        const Table onCpu = routeOnCpu(scores, tokens, routing);
        checks.that(onCpu.samePlaces(twin) && weightsMatch(onCpu, twin, routing, 2 * spread), name + " on the CPU");
      }
}

// Scores that are no numbers choose experts all the same: tables lead nowhere else.
void testRouteOfNan(Checks& checks) {
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  const std::vector<float> scores{nan, nan, nan, nan, 1, nan, 2, nan, -inf, -inf, -inf, -inf, nan, inf, 0, inf};
  const Routing routing{4, 2, true};
  const Table twin = twinOf(scores, 4, routing);
  checks.that(routeOnDevice(scores, 4, routing).samePlaces(twin), "route of NaN");
  checks.that(routeOnCpu(scores, 4, routing).samePlaces(twin), "route of NaN on the CPU");
}

void testAddExpertRows(Checks& checks) {
  Random random(41);
  for (const auto& [tokens, size] : {std::pair<int64_t, int64_t>{1, 1}, {9, 300}, {40, 48}}) {
    const Routing routing{8, 2, true};
    const Table table = twinOf(random.vector(tokens * 8), tokens, routing);
    const auto x = random.vector(tokens * 2 * size), before = random.vector(tokens * size);
    const DeviceArray<float> y(before);
    const DeviceTable device(table);
    cuda::addExpertRows(nullptr, DeviceArray<float>(x).data(), device.view(), tokens, 2, size, y.data());
    const auto got = y.values();
    bool close = true;
    for (int64_t i = 0; i < tokens * size; ++i) {
      double expected = before[index(i)];
      for (int64_t n = 0; n < 2; ++n) {
        const size_t row = index(i / size * 2 + n);
        expected += static_cast<double>(table.weights[row]) * x[index(table.rows[row] * size + i % size)];
      }
      // Values below 1, weights that sum to 1: four roundings.
      close &= std::abs(got[index(i)] - expected) <= 4 * kU * 2;
    }
    checks.that(close, named("addExpertRows", DataType::kFloat32, {tokens, size}));
  }
}

}  // namespace

void testExperts(Checks& checks) {
  testRoute(checks);
  testRouteOfNan(checks);
  testAddExpertRows(checks);
}

}  // namespace flexplan::test
