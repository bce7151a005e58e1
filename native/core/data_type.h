// How numbers are stored. Arithmetic on them is always fp32.
#pragma once

#include <cstddef>
#include <cstdint>

namespace flexplan {

enum class DataType { kFloat32, kFloat16, kBFloat16, kInt4 };

// kInt4: each run of 64 columns is one group of 36 bytes (see quant/int4.h); a row is padded to whole groups.
constexpr int64_t kInt4GroupSize = 64;
constexpr int64_t kInt4GroupBytes = 36;

// Bytes of one row of `cols` values.
constexpr size_t rowBytes(DataType dtype, int64_t cols) {
  switch (dtype) {
    case DataType::kFloat32: return static_cast<size_t>(cols) * 4;
    case DataType::kFloat16:
    case DataType::kBFloat16: return static_cast<size_t>(cols) * 2;
    case DataType::kInt4: break;
  }
  return static_cast<size_t>((cols + kInt4GroupSize - 1) / kInt4GroupSize * kInt4GroupBytes);
}

constexpr const char* dataTypeName(DataType dtype) {
  switch (dtype) {
    case DataType::kFloat32: return "float32";
    case DataType::kFloat16: return "float16";
    case DataType::kBFloat16: return "bfloat16";
    case DataType::kInt4: break;
  }
  return "int4";
}

}  // namespace flexplan
