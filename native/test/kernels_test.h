// What the files of the CPU kernels' test share. Tolerances are bounds: u = 2^-24 is the rounding of one operation; a sum's error is
// at most its depth times u times the sum of magnitudes.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "core/half.h"
#include "core/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "quant/int4.h"
#include "test/check.h"

namespace flexplan::test {

using Bytes = std::vector<std::byte>;
constexpr double kU = 0x1p-24;
constexpr std::array kTypes{DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16, DataType::kInt4};

inline size_t index(int64_t i) { return static_cast<size_t>(i); }

// Roundings that a product can go through: its own (where it is not fused), its chain (of at least 4 in a block; in pairs a unit
// counts twice, but there are 16 chains), the tree of chains, then the sum of blocks, then the bias.
inline double sumDepth(int64_t n) {
  const auto columns = static_cast<double>(n);
  return std::min(columns, cpu::kBlockUnits / 4.0) + 4 + columns / cpu::kBlockUnits + 2;
}

inline std::vector<float> decode(DataType type, const std::byte* row, int64_t cols) {
  std::vector<float> values(index(cols));
  if (type == DataType::kInt4) dequantizeInt4(row, cols, values.data());
  for (int64_t c = 0; c < cols && type != DataType::kInt4; ++c) {
    uint16_t half;
    if (type == DataType::kFloat32) std::memcpy(&values[index(c)], row + c * 4, 4);
    if (type == DataType::kFloat32) continue;
    std::memcpy(&half, row + c * 2, 2);
    values[index(c)] = type == DataType::kFloat16 ? float16ToFloat(half) : bfloat16ToFloat(half);
  }
  return values;
}

inline bool sameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

inline std::string named(const char* op, DataType type, std::initializer_list<int64_t> sizes) {
  std::string text = std::string(cpu::isaName()) + " " + op + " " + dataTypeName(type);
  for (const int64_t size : sizes) text += " " + std::to_string(size);
  return text;
}

// Of the kernel set in use.
void testInt8Kernels(Checks& checks, ThreadPool& pool);
void testAttentionKernels(Checks& checks, ThreadPool& pool);

}  // namespace flexplan::test
