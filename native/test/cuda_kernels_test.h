// What the files of the CUDA kernel test share.
#pragma once

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/half.h"
#include "cuda/kernels.h"
#include "quant/int4.h"
#include "test/check.h"
#include "test/cuda_emulation/device_array.h"
#if defined(FLEXPLAN_CUDA_EMULATION)
#include "test/cuda_emulation/emulation.h"
#endif

namespace flexplan::test {

using Bytes = std::vector<std::byte>;
constexpr double kU = 0x1p-24;
constexpr DataType kTypes[] = {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16, DataType::kInt4};

inline size_t index(int64_t i) { return static_cast<size_t>(i); }

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

inline std::string named(const char* op, DataType type, std::initializer_list<int64_t> sizes) {
  std::string text = op;
  text.append(" ").append(dataTypeName(type));
  for (const int64_t size : sizes) text.append(" ").append(std::to_string(size));
  return text;
}

// Runs body once on a GPU; under emulation with the threads of a block taking turns from the last to the first, and shuffled.
inline void forEachOrder(const std::function<void()>& body) {
#if defined(FLEXPLAN_CUDA_EMULATION)
  using cuda::emulation::Order;
  for (const Order order : {Order::kBackward, Order::kShuffled}) {
    cuda::emulation::setOrder(order, 1);
    body();
  }
  cuda::emulation::setOrder(Order::kForward);
#else
  body();
#endif
}

// What body returns; a failed check when it differs in bits between orders of threads.
inline std::vector<float> inEveryOrder(Checks& checks, const std::string& name, const std::function<std::vector<float>()>& body) {
  std::vector<float> first;
  int runs = 0;
  forEachOrder([&] {
    const std::vector<float> result = body();
    if (runs++ == 0) first = result;
    checks.that(sameBits(first, result), name + " in order " + std::to_string(runs));
  });
  return first;
}

void testMatmul(Checks& checks);
void testExperts(Checks& checks);
void testAttention(Checks& checks);
void testSampling(Checks& checks);

}  // namespace flexplan::test
