// What the kernels' tests share, on the CPU and on the GPU: rows in every type as scalar code stores them.
#pragma once

#include <array>
#include <cstring>
#include <initializer_list>
#include <string>
#include <vector>

#include "core/data_type.h"
#include "core/half.h"
#include "quant/int4.h"

namespace flexplan::test {

using Bytes = std::vector<std::byte>;
// The rounding of one operation in fp32.
inline constexpr double kU = 0x1p-24;
inline constexpr std::array kTypes{DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16, DataType::kInt4};

inline size_t index(int64_t i) { return static_cast<size_t>(i); }

// values: whole rows of `cols`.
inline Bytes encode(DataType type, const std::vector<float>& values, int64_t cols) {
  const size_t stride = rowBytes(type, cols);
  Bytes rows(values.size() / index(cols) * stride);
  for (size_t r = 0; r * index(cols) < values.size(); ++r) {
    const float* row = values.data() + r * index(cols);
    std::byte* out = rows.data() + r * stride;
    if (type == DataType::kInt4) quantizeInt4(row, cols, out);
    for (int64_t c = 0; c < cols && type != DataType::kInt4; ++c) {
      const uint16_t half = type == DataType::kFloat16 ? floatToFloat16(row[c]) : floatToBFloat16(row[c]);
      if (type == DataType::kFloat32) std::memcpy(out + c * 4, row + c, 4);
      if (type != DataType::kFloat32) std::memcpy(out + c * 2, &half, 2);
    }
  }
  return rows;
}

// One row.
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

inline std::vector<float> decodeRows(DataType type, const Bytes& rows, int64_t cols) {
  std::vector<float> values;
  for (size_t at = 0; at < rows.size(); at += rowBytes(type, cols)) {
    const auto row = decode(type, rows.data() + at, cols);
    values.insert(values.end(), row.begin(), row.end());
  }
  return values;
}

inline bool sameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// "op type sizes ...": how a check is called.
inline std::string named(const std::string& op, DataType type, std::initializer_list<int64_t> sizes) {
  std::string text = op;
  text.append(" ").append(dataTypeName(type));
  for (const int64_t size : sizes) text.append(" ").append(std::to_string(size));
  return text;
}

}  // namespace flexplan::test
