// Storage <-> fp32, rows of tables, KV rows.
#include "cuda/quantize.cuh"

namespace flexplan::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kVector = 8;  // values of a thread where rows are aligned: 16 bytes of 16-bit storage

template <DataType kType>
__device__ __forceinline__ void decodeVector(const std::byte* from, float* out) {
  float values[kVector];
  uint4 raw[kType == DataType::kFloat32 ? 2 : 1];
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(raw) / 16); ++i) raw[i] = reinterpret_cast<const uint4*>(from)[i];
#pragma unroll
  for (int i = 0; i < kVector; ++i) values[i] = element<kType>(reinterpret_cast<const std::byte*>(raw), i);
#pragma unroll
  for (int i = 0; i < kVector; i += 4)
    *reinterpret_cast<float4*>(out + i) = float4{values[i], values[i + 1], values[i + 2], values[i + 3]};
}

template <DataType kType>
__device__ __forceinline__ void encodeVector(const float* from, std::byte* out) {
  uint4 raw[kType == DataType::kFloat32 ? 2 : 1];
#pragma unroll
  for (int i = 0; i < kVector; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(from + i);
    const float values[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) setElement<kType>(reinterpret_cast<std::byte*>(raw), i + j, values[j]);
  }
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(raw) / 16); ++i) reinterpret_cast<uint4*>(out)[i] = raw[i];
}

// Rows without padding: one long row. kVector values a thread if aligned, else one.
template <DataType kType, bool kEncode>
__global__ void convertKernel(const std::byte* from, std::byte* to, int64_t count, bool aligned) {
  constexpr int64_t kBytes = kType == DataType::kFloat32 ? 4 : 2;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t begin = aligned ? thread * kVector : thread;
  const int64_t end = begin + (aligned ? kVector : 1);
  const auto* const floatsIn = reinterpret_cast<const float*>(from);
  auto* const floatsOut = reinterpret_cast<float*>(to);
  if (aligned && end <= count) {
    if constexpr (kEncode) encodeVector<kType>(floatsIn + begin, to + begin * kBytes);
    if constexpr (!kEncode) decodeVector<kType>(from + begin * kBytes, floatsOut + begin);
    return;
  }
  for (int64_t i = begin; i < end && i < count; ++i) {
    if constexpr (kEncode) setElement<kType>(to, i, floatsIn[i]);
    if constexpr (!kEncode) floatsOut[i] = element<kType>(from, i);
  }
}

template <DataType kType, bool kEncode>
void convert(Stream stream, const std::byte* from, std::byte* to, int64_t count) {
  const bool aligned = isAligned(from, 16) && isAligned(to, 16);
  const int64_t threads = aligned ? ceilDivide(count, kVector) : count;
  launch(convertKernel<kType, kEncode>, {stream, ceilDivide(threads, kThreads), 1, 1, kThreads, 0}, from, to, count,
         aligned);
}

// One thread per element; row n of the output is row places[n] (n where places is null) of the table.
template <DataType kType>
__global__ void gatherKernel(const std::byte* table, const int32_t* places, int64_t count, int64_t cols, float* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count * cols) return;
  const int64_t row = places != nullptr ? places[i / cols] : i / cols;
  out[i] = element<kType>(table + row * bytesOf<kType>(cols), i % cols);
}

template <DataType kType>
void gather(Stream stream, const std::byte* table, const int32_t* places, int64_t count, int64_t cols, float* out) {
  launch(gatherKernel<kType>, {stream, ceilDivide(count * cols, kThreads), 1, 1, kThreads, 0}, table, places, count,
         cols, out);
}

// One warp per group.
__global__ void quantizeKernel(const float* rows, int64_t numRows, int64_t cols, std::byte* out) {
  const int64_t groups = (cols + kInt4Group - 1) / kInt4Group;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
  if (index >= numRows * groups) return;
  const int64_t col = index % groups * kInt4Group;
  quantizeGroup(rows + index / groups * cols + col, cols - col, out + index * kInt4Bytes);
}

struct KvRows {
  const float *k, *v;
  int64_t stride, tokens, numKvHeads, headDim, rowBytes;
  KvDestination to;
};

__device__ __forceinline__ std::byte* kvRow(const KvRows& r, int64_t token) {
  return r.to.places != nullptr ? r.to.places[token] : r.to.first + token * r.rowBytes;
}

// One block per token; K's values, then V's.
template <DataType kType>
__global__ void storeKvKernel(KvRows r) {
  const int64_t token = blockIdx.x, half = r.numKvHeads * r.headDim;
  for (int64_t i = threadIdx.x; i < 2 * half; i += kThreads)
    setElement<kType>(kvRow(r, token), i, i < half ? r.k[token * r.stride + i] : r.v[token * r.stride + i - half]);
}

// One block per token, one warp per group of a head.
__global__ void storeInt4KvKernel(KvRows r) {
  const int64_t token = blockIdx.x, groups = (r.headDim + kInt4Group - 1) / kInt4Group;
  const int64_t half = r.numKvHeads * groups;
  for (int64_t i = threadIdx.x / kWarpSize; i < 2 * half; i += kWarps) {
    const float* const values = (i < half ? r.k : r.v) + token * r.stride;
    const int64_t head = i % half / groups, col = i % groups * kInt4Group;
    quantizeGroup(values + head * r.headDim + col, r.headDim - col, kvRow(r, token) + i * kInt4Bytes);
  }
}

}  // namespace

void toFloat(Stream stream, DataType from, const std::byte* rows, int64_t numRows, int64_t cols, float* out) {
  if (from == DataType::kInt4) return gather<DataType::kInt4>(stream, rows, nullptr, numRows, cols, out);
  withType(from, [&]<DataType kType>() {
    if constexpr (kType != DataType::kInt4)
      convert<kType, false>(stream, rows, reinterpret_cast<std::byte*>(out), numRows * cols);
  });
}

void fromFloat(Stream stream, DataType to, const float* rows, int64_t numRows, int64_t cols, std::byte* out) {
  const int64_t groups = numRows * ceilDivide(cols, kInt4Group);
  if (to == DataType::kInt4)
    return launch(quantizeKernel, {stream, ceilDivide(groups, kWarps), 1, 1, kThreads, 0}, rows, numRows, cols, out);
  withType(to, [&]<DataType kType>() {
    if constexpr (kType != DataType::kInt4)
      convert<kType, true>(stream, reinterpret_cast<const std::byte*>(rows), out, numRows * cols);
  });
}

void gatherRows(Stream stream, DataType from, const std::byte* table, const int32_t* places, int64_t count,
                int64_t cols, float* out) {
  withType(from, [&]<DataType kType>() { gather<kType>(stream, table, places, count, cols, out); });
}

void storeKvRows(Stream stream, DataType dtype, const float* k, const float* v, int64_t stride, int64_t tokens,
                 int64_t numKvHeads, int64_t headDim, KvDestination to) {
  const auto rowBytesOfKv = 2 * numKvHeads * static_cast<int64_t>(rowBytes(dtype, headDim));
  const KvRows rows{k, v, stride, tokens, numKvHeads, headDim, rowBytesOfKv, to};
  const Launch shape{stream, tokens, 1, 1, kThreads, 0};
  if (dtype == DataType::kInt4) return launch(storeInt4KvKernel, shape, rows);
  withType(dtype, [&]<DataType kType>() {
    if constexpr (kType != DataType::kInt4) launch(storeKvKernel<kType>, shape, rows);
  });
}

}  // namespace flexplan::cuda
