// Choosing tokens: one block for each row of logits.
//
// Candidates are ordered by a key, the largest first: most likely first (the lowest id among equals), or by id. The one
// at which the running sum of weights passes a target is found digit by digit of its key, from the highest: a pass over
// the logits gives the weights of all that begin with what is known, for each next digit. Weights are whole numbers, so
// that sums do not depend on their order.
#include "cuda/warp.cuh"

namespace flexplan::cuda {
namespace {

using cpu::TokenChoice;
using Weight = unsigned long long;

constexpr int kThreads = 512;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kDigitBits = 3;
constexpr int kDigits = 1 << kDigitBits;
constexpr int kLogitBits = 32;
constexpr float kUnit = 0x1p40f;  // the weight of the most likely; ids have 23 bits at most in practice, so sums fit

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
    const Best other{__shfl_xor_sync(kAllLanes, best.value, distance),
                     __shfl_xor_sync(kAllLanes, best.index, distance)};
    if (isBetter(other, best)) best = other;
  }
  return best;
}

// shared: [kWarps]. Index 0 when all are NaN.
__device__ __forceinline__ Best findBest(const float* logits, int64_t vocabSize, Best* shared) {
  Best best{-INFINITY, 0x7fffffff};
  for (int64_t i = threadIdx.x; i < vocabSize; i += kThreads) {
    const Best candidate{logits[i], static_cast<int32_t>(i)};
    if (isBetter(candidate, best)) best = candidate;
  }
  best = bestOfLanes(best);
  if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize] = best;
  __syncthreads();
  for (int warp = 0; warp < kWarps; ++warp)
    if (isBetter(shared[warp], best)) best = shared[warp];
  __syncthreads();
  if (best.index == 0x7fffffff) best.index = 0;
  return best;
}

struct Candidates {
  const float* logits;
  int64_t vocabSize;
  float highest, temperature;
  int idBits;
  bool byLikelihood;

  // A NaN weighs nothing.
  __device__ __forceinline__ Weight weight(int64_t id) const {
    const float weight = expf((logits[id] - highest) / temperature) * kUnit;
    return weight > 0 ? static_cast<Weight>(weight) : 0;
  }
  __device__ __forceinline__ uint64_t key(int64_t id) const {
    const auto later = static_cast<uint64_t>(vocabSize - 1 - id);
    if (!byLikelihood) return later;
    const uint32_t bits = __float_as_uint(logits[id] + 0.0f);  // -0 is 0
    return static_cast<uint64_t>(bits >> 31 ? ~bits : bits | 0x80000000u) << idBits | later;
  }
  __device__ __forceinline__ int64_t idOf(uint64_t key) const {
    return vocabSize - 1 - static_cast<int64_t>(key & ((uint64_t{1} << idBits) - 1));
  }
  __device__ __forceinline__ int keyBits() const { return byLikelihood ? kLogitBits + idBits : idBits; }
};

// Sums over all threads of the block, the same in every one. shared: [kWarps][kDigits]
__device__ __forceinline__ void sumBlock(Weight (&sums)[kDigits], Weight* shared) {
#pragma unroll
  for (int d = 0; d < kDigits; ++d) {
#pragma unroll
    for (int distance = kWarpSize / 2; distance > 0; distance /= 2)
      sums[d] += __shfl_xor_sync(kAllLanes, sums[d], distance);
    if (threadIdx.x % kWarpSize == 0) shared[threadIdx.x / kWarpSize * kDigits + d] = sums[d];
  }
  __syncthreads();
#pragma unroll
  for (int d = 0; d < kDigits; ++d) {
    sums[d] = 0;
    for (int warp = 0; warp < kWarps; ++warp) sums[d] += shared[warp * kDigits + d];
  }
  __syncthreads();
}

// sums[d]: the weights of candidates whose key begins with `prefix`, followed by a digit of at least d; the rest of a
// key has `shift` bits.
__device__ __forceinline__ void sumDigits(const Candidates& all, uint64_t prefix, int shift, Weight (&sums)[kDigits],
                                          Weight* shared) {
#pragma unroll
  for (int d = 0; d < kDigits; ++d) sums[d] = 0;
  for (int64_t id = threadIdx.x; id < all.vocabSize; id += kThreads) {
    const uint64_t key = all.key(id) >> shift;
    if (key >> kDigitBits != prefix) continue;
    const Weight weight = all.weight(id);
    const int digit = static_cast<int>(key) & (kDigits - 1);
#pragma unroll
    for (int d = 0; d < kDigits; ++d) sums[d] += digit >= d ? weight : 0;
  }
  sumBlock(sums, shared);
}

struct Found {
  int64_t id;
  Weight through;  // the sum up to it and with it
};

// The first candidate with a sum beyond target, which is less than the sum of all.
__device__ __forceinline__ Found find(const Candidates& all, Weight target, Weight* shared) {
  uint64_t prefix = 0;
  Weight before = 0;
  for (int shift = (all.keyBits() - 1) / kDigitBits * kDigitBits; shift >= 0; shift -= kDigitBits) {
    Weight sums[kDigits];
    sumDigits(all, prefix, shift, sums, shared);
    int digit = 0;
    Weight larger = sums[1];
#pragma unroll
    for (int d = 1; d < kDigits; ++d) {
      if (before + sums[d] <= target) continue;
      digit = d;
      larger = d + 1 < kDigits ? sums[d + 1] : 0;
    }
    before += larger;
    prefix = prefix << kDigitBits | static_cast<uint64_t>(digit);
  }
  const int64_t id = all.idOf(prefix);
  return {id, before + all.weight(id)};
}

__device__ __forceinline__ Weight atMost(double value, Weight most) {
  const auto whole = static_cast<Weight>(value);
  return whole < most ? whole : most;
}

// The whole block; total > 0.
__device__ __forceinline__ int64_t sample(Candidates all, const TokenChoice& choice, Weight total, Weight* shared) {
  Weight kept = total;
  if (choice.topP < 1) {
    all.byLikelihood = true;
    // The smallest set that reaches topP ends where the sum passes the last whole number below it.
    const double wanted = ceil(choice.topP * static_cast<double>(total)) - 1;
    kept = find(all, wanted > 0 ? atMost(wanted, total - 1) : 0, shared).through;
  }
  return find(all, atMost(choice.uniform * static_cast<double>(kept), kept - 1), shared).id;
}

__global__ void __launch_bounds__(kThreads)
    chooseKernel(const float* logits, const TokenChoice* choices, int64_t vocabSize, int idBits, int32_t* tokens) {
  auto* const shared = reinterpret_cast<Weight*>(sharedMemory());
  const float* const row = logits + blockIdx.x * vocabSize;
  const TokenChoice choice = choices[blockIdx.x];
  const Best best = findBest(row, vocabSize, reinterpret_cast<Best*>(shared));
  int64_t token = best.index;
  if (choice.temperature > 0) {
    const Candidates all{row, vocabSize, best.value, static_cast<float>(choice.temperature), idBits, false};
    Weight sums[kDigits];
    sumDigits(all, 0, 64 - kDigitBits, sums, shared);
    if (sums[0] > 0) token = sample(all, choice, sums[0], shared);
  }
  if (threadIdx.x == 0) tokens[blockIdx.x] = static_cast<int32_t>(token);
}

}  // namespace

void chooseTokens(Stream stream, const float* logits, const TokenChoice* choices, int64_t rows, int64_t vocabSize,
                  int32_t* tokens) {
  int idBits = 1;
  while (int64_t{1} << idBits < vocabSize) ++idBits;
  static_assert(sizeof(Best) <= kDigits * sizeof(Weight));
  launch(chooseKernel, {stream, rows, 1, 1, kThreads, kWarps * kDigits * sizeof(Weight)}, logits, choices, vocabSize,
         idBits, tokens);
}

}  // namespace flexplan::cuda
