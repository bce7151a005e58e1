#include "bench/operands.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/error.h"
#include "cpu/ops.h"

namespace flexplan::bench {
namespace {

constexpr int64_t kFillGrain = int64_t{1} << 20;

// Whole, small, repeatable numbers in [-1, 1): no NaN, no subnormals.
void fillValues(float* values, int64_t count) {
  uint32_t state = 1;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525u + 1013904223u;
    values[i] = static_cast<float>(static_cast<int32_t>(state) >> 8) * 0x1p-23f;
  }
}

}  // namespace

void expectPositive(const char* name, int64_t value) {
  if (value < 1)
    throw Error(ErrorCode::kBadInput, std::string("expected ") + name + " of at least 1, got " + std::to_string(value) +
                                          "; give a larger one");
}

AlignedBuffer randomFloats(int64_t count) {
  AlignedBuffer buffer(size(count) * sizeof(float));
  fillValues(buffer.as<float>(), count);
  return buffer;
}

AlignedBuffer storedCopies(ThreadPool& pool, DataType type, int64_t rows, int64_t cols, int64_t copies) {
  const auto stride = static_cast<int64_t>(rowBytes(type, cols));
  const int64_t bytes = rows * stride;
  AlignedBuffer buffer(size(bytes * copies));
  constexpr int64_t kDistinctRows = 64;
  const int64_t distinct = std::min(rows, kDistinctRows);
  const AlignedBuffer values = randomFloats(distinct * cols);
  AlignedBuffer encoded(size(distinct * stride));
  cpu::fromFloat(pool, type, values.as<float>(), distinct, cols, encoded.data());
  pool.parallelFor(rows * copies, std::max<int64_t>(1, kFillGrain / stride), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      std::memcpy(buffer.data() + row * stride, encoded.data() + row % distinct * stride, size(stride));
  });
  return buffer;
}

}  // namespace flexplan::bench
