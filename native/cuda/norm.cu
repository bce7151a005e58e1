#include "cuda/warp.cuh"

namespace flexplan::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
// Rows up to this size take one warp each (norms over heads); longer ones a block.
constexpr int64_t kWarpRow = 512;

// The sum over the threads of a row, in one order for all. kWhole: a row is the whole block's; partial: [kWarps]
// shared.
template <bool kWhole>
__device__ __forceinline__ float sumThreads(float value, float* partial) {
  value = sumLanes(value);
  if constexpr (!kWhole) return value;
  if (threadIdx.x % kWarpSize == 0) partial[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kWarps; ++warp) sum += partial[warp];
  __syncthreads();
  return sum;
}

// layer norm: y = (x - mean) / sqrt(mean((x - mean)^2) + epsilon) * weight + bias
// RMS norm:   y = x / sqrt(mean(x^2) + epsilon) * weight
template <bool kWhole>
__global__ void normKernel(const float* x, const float* weight, const float* bias, float epsilon, int64_t tokens,
                           int64_t size, float* y) {
  auto* const partial = reinterpret_cast<float*>(sharedMemory());
  constexpr int kStride = kWhole ? kThreads : kWarpSize;
  const int64_t token = kWhole ? blockIdx.x : static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarpSize;
  if (token >= tokens) return;
  const int64_t first = threadIdx.x % kStride;
  x += token * size;
  y += token * size;
  float mean = 0;
  if (bias != nullptr) {
    for (int64_t i = first; i < size; i += kStride) mean += x[i];
    mean = sumThreads<kWhole>(mean, partial) / static_cast<float>(size);
  }
  float squares = 0;
  for (int64_t i = first; i < size; i += kStride) squares = fmaf(x[i] - mean, x[i] - mean, squares);
  squares = sumThreads<kWhole>(squares, partial);
  const float inverse = 1.0f / sqrtf(squares / static_cast<float>(size) + epsilon);
  for (int64_t i = first; i < size; i += kStride)
    y[i] = fmaf((x[i] - mean) * inverse, weight[i], bias != nullptr ? bias[i] : 0.0f);
}

}  // namespace

void norm(Stream stream, const float* x, const float* weight, const float* bias, float epsilon, int64_t tokens,
          int64_t size, float* y) {
  if (size <= kWarpRow)
    launch(normKernel<false>, {stream, ceilDivide(tokens, kWarps), 1, 1, kThreads, 0}, x, weight, bias, epsilon, tokens,
           size, y);
  else
    launch(normKernel<true>, {stream, tokens, 1, 1, kThreads, kWarps * sizeof(float)}, x, weight, bias, epsilon, tokens,
           size, y);
}

}  // namespace flexplan::cuda
