// Mixtures of experts: which token goes where, and the sum of what comes back.
#include "cuda/warp.cuh"

namespace flexplan::cuda {
namespace {

using cpu::ExpertRows;
using cpu::Routing;

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarpSize;

struct Score {
  float value;
  int32_t expert;
};

__device__ __forceinline__ bool isBefore(const Score& a, const Score& b) {
  return a.value > b.value || (a.value == b.value && a.expert < b.expert);
}

__device__ __forceinline__ Score scoreOf(const float* scores, int32_t expert) {
  const float value = scores[expert];
  return {value == value ? value : -INFINITY, expert};  // a NaN is the lowest
}

// The next best after `last`.
__device__ __forceinline__ Score nextBest(const float* scores, int32_t numExperts, const Score& last) {
  Score best{-INFINITY, numExperts};
  for (int32_t e = 0; e < numExperts; ++e) {
    const Score score = scoreOf(scores, e);
    if (isBefore(last, score) && isBefore(score, best)) best = score;
  }
  return best;
}

// One thread: the experts of one token, in ascending order.
__device__ __forceinline__ void chooseExperts(const float* scores, const Routing& routing, int32_t* experts,
                                              float* weights) {
  const auto numExperts = static_cast<int32_t>(routing.numExperts);
  const Score first = nextBest(scores, numExperts, {INFINITY, -1});
  Score last = first;
  for (int64_t n = 1; n < routing.numActive; ++n) last = nextBest(scores, numExperts, last);
  const float highest = scores[first.expert];
  float sum = 0;
  int64_t n = 0;
  for (int32_t e = 0; e < numExperts; ++e) {
    const bool isChosen = !isBefore(last, scoreOf(scores, e));
    const float weight = expf(scores[e] - highest);
    if (isChosen || !routing.normalize) sum += weight;
    if (!isChosen) continue;
    experts[n] = e;
    weights[n++] = weight;
  }
  for (n = 0; n < routing.numActive; ++n) weights[n] /= sum;
}

// A warp: calls body(t, n, rank) for every token t whose n-th expert this is, rank counting them from `first`; returns
// the last rank + 1.
template <typename Body>
__device__ __forceinline__ int32_t forEachToken(const int32_t* experts, int64_t tokens, int64_t numActive,
                                                int32_t expert, int32_t first, Body&& body) {
  const unsigned lane = threadIdx.x % kWarpSize;
  for (int64_t begin = 0; begin < tokens; begin += kWarpSize) {
    const int64_t token = begin + lane;
    int64_t own = -1;
    // A bound and not a second condition: on that the ptxas of CUDA 12.4 dies for sm_90.
    const int64_t numOwn = token < tokens ? numActive : 0;
    for (int64_t n = 0; n < numOwn; ++n)
      if (experts[token * numActive + n] == expert) own = n;
    const unsigned chosen = __ballot_sync(kAllLanes, own >= 0);
    if (own >= 0) body(token, own, first + __popc(chosen & ((1u << lane) - 1)));
    first += __popc(chosen);
  }
  return first;
}

// One block. shared: [numExperts], the experts' counts, then where their rows end.
__global__ void __launch_bounds__(kThreads)
    routeKernel(const float* scores, int64_t tokens, Routing routing, ExpertRows out) {
  auto* const ends = reinterpret_cast<int32_t*>(sharedMemory());
  const int64_t numExperts = routing.numExperts, numActive = routing.numActive;
  for (int64_t t = threadIdx.x; t < tokens; t += kThreads)
    chooseExperts(scores + t * numExperts, routing, out.experts + t * numActive, out.weights + t * numActive);
  __syncthreads();
  for (int64_t e = threadIdx.x / kWarpSize; e < numExperts; e += kWarps) {
    const int32_t count =
        forEachToken(out.experts, tokens, numActive, static_cast<int32_t>(e), 0, [](int64_t, int64_t, int32_t) {});
    if (threadIdx.x % kWarpSize == 0) ends[e] = count;
  }
  __syncthreads();
  if (threadIdx.x == 0)
    for (int64_t e = 1; e < numExperts; ++e) ends[e] += ends[e - 1];
  __syncthreads();
  for (int64_t e = threadIdx.x / kWarpSize; e < numExperts; e += kWarps)
    forEachToken(out.experts, tokens, numActive, static_cast<int32_t>(e), e > 0 ? ends[e - 1] : 0,
                 [&](int64_t t, int64_t n, int32_t row) {
                   out.tokens[row] = static_cast<int32_t>(t);
                   out.rows[t * numActive + n] = row;
                 });
  for (int64_t e = threadIdx.x; e < numExperts; e += kThreads) out.ends[e] = ends[e];
}

constexpr int kAddThreads = 256;
__global__ void addExpertRowsKernel(const float* x, ExpertRows rows, int64_t tokens, int64_t numActive, int64_t size,
                                    float* y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kAddThreads + threadIdx.x;
  if (i >= tokens * size) return;
  const int64_t token = i / size, col = i % size;
  float sum = y[i];
  for (int64_t n = token * numActive; n < (token + 1) * numActive; ++n)
    sum += rows.weights[n] * x[rows.rows[n] * size + col];
  y[i] = sum;
}

}  // namespace

void route(Stream stream, const float* scores, int64_t tokens, const Routing& routing, const ExpertRows& out) {
  const auto sharedBytes = static_cast<size_t>(routing.numExperts) * sizeof(int32_t);
  launch(routeKernel, {stream, tokens > 0 ? 1 : 0, 1, 1, kThreads, sharedBytes}, scores, tokens, routing, out);
}

void addExpertRows(Stream stream, const float* x, const ExpertRows& rows, int64_t tokens, int64_t numActive,
                   int64_t size, float* y) {
  launch(addExpertRowsKernel, {stream, ceilDivide(tokens * size, kAddThreads), 1, 1, kAddThreads, 0}, x, rows, tokens,
         numActive, size, y);
}

}  // namespace flexplan::cuda
