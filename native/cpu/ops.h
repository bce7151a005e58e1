// The CPU's kernels: what they mean. One source (kernels-inl.h) compiled once per ISA, one table chosen once
// (dispatch.cpp). All pointers may be unaligned unless said otherwise. Matrices are row-major.
//
// Arithmetic is fp32, with two exceptions in matmul. Where the machine multiplies pairs of bf16 (avx512-bf16), tokens
// of bf16 weights are rounded to bf16 (to nearest even), unless they are exactTokens: an element is off by at most 2^-9
// of itself. Tokens of 4-bit weights are rounded to 8 bits on every machine: an element is off by at most 1/254 of the
// largest of its 64 columns. Weights are exact, sums of groups are added in fp32. Attention, norms and everything else
// stay fp32.
//
// Determinism: the value of each output element depends on its own operands alone: not on how many tokens share the
// launch, how rows are split into pieces, which thread computes it, or how many threads there are. So results do not
// depend on batch shape or placement. (They may differ between ISAs.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/data_type.h"
#include "core/thread_pool.h"
#include "cpu/activation.h"

namespace flexplan::cpu {

// Consecutive rows of a weight matrix that lie together in memory.
struct WeightPiece {
  const std::byte* data;  // rows x rowBytes(dtype, cols)
  int64_t rows;
};

// A weight matrix [sum of pieces' rows, cols] whose rows lie in up to 3 places.
struct WeightMatrix {
  DataType dtype;  // kFloat32, kFloat16, kBFloat16, kInt4 (groups of 64 along cols)
  int64_t cols;
  WeightPiece pieces[3];
  int numPieces;
};

// out[t, r] = sum_c x[t, c] * weight[r, c] + bias[r]
struct Matmul {
  WeightMatrix weight;
  const float* bias;  // [rows] or null
  const float* x;     // [tokens, xStride]
  int64_t xStride;
  float* out;  // [tokens, outStride]
  int64_t outStride;
  bool exactTokens =
      false;  // x must not be rounded to bf16; to 8 bits it is: the error of 4-bit weights is larger by far
};

// Several matmuls over the same number of tokens in one parallel region (q, k, v; gate, up).
void matmul(ThreadPool& pool, std::span<const Matmul> ops, int64_t tokens);
// Most memory that matmuls of one input take beside their operands: its tokens, [tokens, cols], as the kernels want
// them.
int64_t matmulScratchBytes(int64_t tokens, int64_t cols);

// Converts rows between storage and fp32. kInt4: cols values per row, group padding handled.
void toFloat(ThreadPool& pool, DataType from, const std::byte* rows, int64_t numRows, int64_t cols, float* out);
void fromFloat(ThreadPool& pool, DataType to, const float* rows, int64_t numRows, int64_t cols, std::byte* out);
// To kInt4 with less error and more time than fromFloat (see quant/int4_fit.h): for weights.
void fitInt4(ThreadPool& pool, const float* rows, int64_t numRows, int64_t cols, std::byte* out);

// y[t] = (x[t] - mean) / sqrt(variance + epsilon) * weight + bias      x, y: [tokens, size]; y may be x
void layerNorm(ThreadPool& pool, const float* x, const float* weight, const float* bias, float epsilon, int64_t tokens,
               int64_t size, float* y);
// y[t] = x[t] / sqrt(mean(x[t]^2) + epsilon) * weight
void rmsNorm(ThreadPool& pool, const float* x, const float* weight, float epsilon, int64_t tokens, int64_t size,
             float* y);

// y += x
void add(ThreadPool& pool, const float* x, int64_t count, float* y);

// x = f(x), or x = f(gate) * x when gate is not null
void activate(ThreadPool& pool, Activation f, const float* gate, int64_t count, float* x);

// Rotates the halves of each head (Hugging Face "rotate_half" order) by position * inverseFrequencies[d], d < headDim
// / 2. x: [tokens, numHeads * headDim] with row stride xStride
void rope(ThreadPool& pool, const int32_t* positions, const float* inverseFrequencies, int64_t tokens, int64_t numHeads,
          int64_t headDim, int64_t xStride, float* x);

// Positions that share one step of attention's online softmax; chunks begin at multiples of it.
constexpr int64_t kAttentionChunk = 64;

// The KV cache of one sequence in one layer: row p holds K then V of position p, numKvHeads * headDim values each, in
// dtype (kInt4: each head padded to whole groups of 64). Page n holds rows [n * pageRows, (n + 1) * pageRows), one
// after the other. pageRows is a multiple of kAttentionChunk, or there is one page. `pages` is host memory, the pages
// are the device's.
struct KvView {
  const std::byte* const* pages;
  int64_t pageRows;
  DataType dtype;
};

// Causal attention of one sequence's newest numQueries tokens over its numQueries + numPast KV rows (all in `kv`).
// Query t attends to positions p <= numPast + t, and p > numPast + t - slidingWindow when slidingWindow > 0.
// Query head h uses KV head h / (numHeads / numKvHeads). scale = 1 / sqrt(headDim).
// sparseValueFraction f < 1 (FlexGen, section 4 "sparse attention"): of the n positions that a query attends to, a head
// reads V only of the ceil(f * n) with the highest scores, of equal ones those at lower positions. What is left out
// counts in the softmax's denominator: the weights kept are not renormalised.
struct AttentionSequence {
  KvView kv;
  int64_t numPast;
  int64_t numQueries;
  const float* q;  // [numQueries, qStride]
  float* out;      // [numQueries, outStride]
};
struct AttentionShape {
  int64_t numHeads, numKvHeads, headDim, qStride, outStride, slidingWindow;
  double sparseValueFraction = 1;  // 0 < f <= 1
};
void attention(ThreadPool& pool, const AttentionShape& shape, std::span<const AttentionSequence> sequences);
// Most memory that sparse attention takes for the scores of sequences with no more positions than this.
int64_t sparseScoreBytes(int64_t numHeads, int64_t numKvHeads, int64_t positions);

// New K and V of tokens that follow one another: [tokens, numKvHeads * headDim] each, with row stride `stride`.
struct KvRows {
  DataType dtype;  // as stored
  const float* k;
  const float* v;
  int64_t stride, numKvHeads, headDim;
};
// Where some of them go, one row after the other.
struct KvRun {
  std::byte* rows;
  int64_t tokens;
};
// Rounds K and V to dtype and writes them as KV rows. Each run takes the tokens that follow those of the runs before
// it.
void storeKvRows(ThreadPool& pool, const KvRows& from, std::span<const KvRun> runs);
size_t kvRowBytes(DataType dtype, int64_t numKvHeads, int64_t headDim);

// Name of the kernel set in use and of all that this machine can run, best last. FLEXPLAN_ISA forces one.
const char* isaName();
std::span<const char* const> availableIsas();

}  // namespace flexplan::cpu
