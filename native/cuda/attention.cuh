// What the attention kernels share. Scores are taken to base 2: q is multiplied by log2(e) / sqrt(headDim), weights are
// 2^(s - max).
#pragma once

#include "cuda/storage.cuh"

namespace flexplan::cuda {

// A call, as kernels get it. Positions are below kWholeSequence, so that they and rows are counted in ints.
struct AttentionCall {
  AttentionShape shape;
  const AttentionSequence* sequences;
  int64_t headBytes, rowBytes;  // of one head's K or V; of a KV row
  int headsPerKvHead;
  int pageShift;  // pageRows = 2^pageShift
  int window;     // as shape.slidingWindow
  float scale;
};
AttentionCall makeCall(const AttentionShape& shape, const AttentionSequence* sequences);

// Any cache and shape, fp32 throughout: every query by itself, in the way of decodeAttention but unsplit.
void attendSimply(Stream stream, const AttentionCall& call, int64_t count, int64_t mostQueries);

__device__ __forceinline__ int smaller(int a, int b) { return a < b ? a : b; }
__device__ __forceinline__ int larger(int a, int b) { return a > b ? a : b; }

// K (which = 0) or V (1) of one head and position.
__device__ __forceinline__ const std::byte* kvHeadRow(const AttentionCall& call, const AttentionSequence& sequence,
                                                      int position, int kvHead, int which) {
  const int64_t inPage = position & ((1 << call.pageShift) - 1);
  return sequence.pages[position >> call.pageShift] + inPage * call.rowBytes +
         (which * call.shape.numKvHeads + kvHead) * call.headBytes;
}

// The first position that the query at position `own` attends to.
__device__ __forceinline__ int firstAttended(const AttentionCall& call, int own) {
  return call.window > 0 ? larger(0, own - call.window + 1) : 0;
}

}  // namespace flexplan::cuda
