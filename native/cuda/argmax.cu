#include "cuda/launch.cuh"

namespace flexplan::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarpSize;

struct Best {
  float value;
  int32_t index;
};

__device__ __forceinline__ bool isBetter(const Best& a, const Best& b) {
  return a.value > b.value || (a.value == b.value && a.index < b.index);
}

__device__ __forceinline__ Best bestOfLanes(Best best) {
#pragma unroll
  for (int distance = kWarpSize / 2; distance > 0; distance /= 2) {
    const Best other{__shfl_xor_sync(kAllLanes, best.value, distance), __shfl_xor_sync(kAllLanes, best.index, distance)};
    if (isBetter(other, best)) best = other;
  }
  return best;
}

// One block per row.
__global__ void argmaxKernel(const float* logits, int64_t vocabSize, int32_t* tokens) {
  auto* const bests = reinterpret_cast<Best*>(sharedMemory());
  const float* const row = logits + blockIdx.x * vocabSize;
  // Index 0 answers when all are NaN.
  Best best{-INFINITY, 0x7fffffff};
  for (int64_t i = threadIdx.x; i < vocabSize; i += kThreads) {
    const Best candidate{row[i], static_cast<int32_t>(i)};
    if (isBetter(candidate, best)) best = candidate;
  }
  best = bestOfLanes(best);
  if (threadIdx.x % kWarpSize == 0) bests[threadIdx.x / kWarpSize] = best;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < kWarps; ++warp)
    if (isBetter(bests[warp], best)) best = bests[warp];
  tokens[blockIdx.x] = best.index == 0x7fffffff ? 0 : best.index;
}

}  // namespace

void argmax(Stream stream, const float* logits, int64_t rows, int64_t vocabSize, int32_t* tokens) {
  launch(argmaxKernel, {stream, rows, 1, 1, kThreads, kWarps * sizeof(Best)}, logits, vocabSize, tokens);
}

}  // namespace flexplan::cuda
