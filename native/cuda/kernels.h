// The GPU's kernels: what they mean. Plain C++, so that the host side compiles without CUDA's headers. The operations
// are those of cpu/ops.h, whose meanings hold here too; this file says what differs.
//
// Every pointer is device memory, also the arrays of positions, rows, scales, pages and sequences, unless its comment
// says host. What is small and passed by value or marked host has been taken when a function returns. A function only
// launches: it returns before the work is done, in order with everything else on its stream, and throws Error kEngine
// when the launch is refused and kUnsupported for shapes that no kernel covers. Counts of zero are allowed and launch
// nothing.
//
// Alignment: fp32 arrays to 4 bytes, 16-bit rows to 2, 4-bit rows to 4. Rows that begin at multiples of 16 bytes are
// read several times faster; all models of ordinary sizes have such rows if the buffers begin at multiples of 16.
//
// Determinism: an output element's bits never depend on which rows share its launch, on how rows are split into pieces
// or pages, or on timing (no atomics). They do depend on the number of tokens where that chooses the kernel, because
// kernels add in different orders: matmul has one for up to kFewTokens tokens, one for up to kSomeTokens and one for
// more; and prefillAttention and decodeAttention differ. Against the CPU: element-wise operations and 4-bit storage
// give the same values but for fused multiply-adds and the functions of the CUDA math library; matmul and prefill
// attention round what they multiply to 16 bits (each says how).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/data_type.h"
#include "cpu/activation.h"
#include "cpu/experts.h"
#include "cpu/sampling.h"

namespace flexplan::cuda {

using Stream = void*;  // a cudaStream_t

// ---- Storage <-> fp32 -----------------------------------------------------------------------------------------------

// out[r] = the values of row r      out: [numRows, cols]
void toFloat(Stream stream, DataType from, const std::byte* rows, int64_t numRows, int64_t cols, float* out);
// kInt4: the bytes of quantizeInt4 (quant/int4.h).
void fromFloat(Stream stream, DataType to, const float* rows, int64_t numRows, int64_t cols, std::byte* out);
// out[n] = the values of row places[n] of a table in `from`      out: [count, cols]
void gatherRows(Stream stream, DataType from, const std::byte* table, const int32_t* places, int64_t count,
                int64_t cols, float* out);

struct CopySpan {
  std::byte* to;
  const std::byte* from;
  int64_t bytes;
};
// Copies that do not overlap, in one launch. spans: [count]; mostBytes: no span is longer.
void copySpans(Stream stream, const CopySpan* spans, int64_t count, int64_t mostBytes);

// Where the new KV row of each token goes: to places[t] when places is not null, otherwise to first + t * kvRowBytes.
struct KvDestination {
  std::byte* first;
  std::byte* const* places;  // [tokens]
};
// Rounds K and V ([tokens, numKvHeads * headDim], with row stride `stride`) to dtype. A KV row is as in cpu/ops.h.
void storeKvRows(Stream stream, DataType dtype, const float* k, const float* v, int64_t stride, int64_t tokens,
                 int64_t numKvHeads, int64_t headDim, KvDestination to);

// ---- Element by element, token by token -----------------------------------------------------------------------------

// As cpu::layerNorm, or cpu::rmsNorm when bias is null. y may be x.
void norm(Stream stream, const float* x, const float* weight, const float* bias, float epsilon, int64_t tokens,
          int64_t size, float* y);
// y += x
void add(Stream stream, const float* x, int64_t count, float* y);
// x = f(x), or x = f(gate) * x when gate is not null
void activate(Stream stream, cpu::Activation f, const float* gate, int64_t count, float* x);
// As cpu::rope. positions: [tokens]; inverseFrequencies: [headDim / 2]
void rope(Stream stream, const int32_t* positions, const float* inverseFrequencies, int64_t tokens, int64_t numHeads,
          int64_t headDim, int64_t xStride, float* x);

// ---- Products -------------------------------------------------------------------------------------------------------

// Up to kFewTokens tokens matmul is bound by reading the weights, up to kSomeTokens it is cut finer to fill the GPU.
constexpr int64_t kFewTokens = 16, kSomeTokens = 64;

// Matmuls take x in the type that is multiplied, rows padded with zeros:
//   weights      x is
//   kFloat32     kFloat32 as it is, no padding needed: fp32 throughout
//   kBFloat16    kBFloat16
//   kFloat16     kFloat16; beyond +-65504 it saturates
//   kInt4        kFloat16 (saturating); weights are multiplied as fp16(q * scale + min)
// Products of 16-bit factors are added in fp32.
constexpr DataType matmulInputType(DataType weights) {
  return weights == DataType::kInt4 ? DataType::kFloat16 : weights;
}
constexpr int64_t kMatmulInputPad = 64;
constexpr int64_t matmulInputStride(int64_t cols) {
  return (cols + kMatmulInputPad - 1) / kMatmulInputPad * kMatmulInputPad;
}
// Bytes that matmulInput writes.
constexpr int64_t matmulInputBytes(DataType weights, int64_t tokens, int64_t cols) {
  return weights == DataType::kFloat32 ? 0 : tokens * matmulInputStride(cols) * 2;
}
// Rounds x [tokens, xStride] to what matmul takes: out[t, c], row stride matmulInputStride(cols), zeros from cols on.
// weights: kFloat16, kBFloat16 or kInt4. out: aligned to 16 bytes.
void matmulInput(Stream stream, DataType weights, const float* x, int64_t xStride, int64_t tokens, int64_t cols,
                 void* out);

struct WeightPiece {
  const std::byte* data;  // rows x rowBytes(dtype, cols)
  int64_t rows;
};
// As cpu::WeightMatrix and cpu::Matmul. x: what matmulInput made (kFloat32 weights: fp32 with row stride xStride).
struct Matmul {
  DataType dtype;
  int64_t cols;
  WeightPiece pieces[3];
  int numPieces;
  const float* bias;  // [rows] or null
  const void* x;
  int64_t xStride;  // elements
  float* out;       // [tokens, outStride]
  int64_t outStride;
};
constexpr int kMostMatmuls = 3;
// Up to kMostMatmuls matmuls (ops: host) over the same tokens in one launch (q, k, v; gate, up). All have the same
// dtype.
void matmul(Stream stream, const Matmul* ops, int count, int64_t tokens);

// out[t] = row for every t      row: [size]; out: [count, outStride]; a bias, before products are added to it
void repeatRow(Stream stream, const float* row, int64_t size, int64_t count, int64_t outStride, float* out);

// ---- Mixtures of experts --------------------------------------------------------------------------------------------

// As cpu::route.
void route(Stream stream, const float* scores, int64_t tokens, const cpu::Routing& routing, const cpu::ExpertRows& out);
// One matmul for each of `count` experts in one launch, each over its own of `tokens` rows of x and out: expert e has
// [ends[e - 1], ends[e]). All are alike but for weights and bias. ops: host; deviceOps: the same on the device. The
// number of tokens that chooses the kernel is that of an expert on average.
void matmulByExpert(Stream stream, const Matmul* ops, const Matmul* deviceOps, int count, const int32_t* ends,
                    int64_t tokens);
// y[t] += sum_n rows.weights[t, n] * x[rows.rows[t, n]], in order of n      y: [tokens, size]
void addExpertRows(Stream stream, const float* x, const cpu::ExpertRows& rows, int64_t tokens, int64_t numActive,
                   int64_t size, float* y);

// ---- Attention ------------------------------------------------------------------------------------------------------

// The KV cache of one sequence in one layer: row p is at pages[p / pageRows] + p % pageRows * kvRowBytes. Pages begin
// at multiples of 16 bytes where a KV row is a multiple of 16, of 4 otherwise.
struct AttentionSequence {
  const std::byte* const* pages;
  const float* q;  // [numQueries, qStride]
  float* out;      // [numQueries, outStride]
  int32_t numPast, numQueries;
};
struct AttentionShape {
  int64_t numHeads, numKvHeads, headDim, qStride, outStride, slidingWindow;
  DataType kvType;
  int64_t pageRows;  // a power of two; rows that lie together are one page of kWholeSequence rows
};
constexpr int64_t kWholeSequence = int64_t{1} << 30;
constexpr int64_t kMostHeadDim = 256;

// As cpu::attention over sequences: [count] of any numbers of queries, none with more than mostQueries. kFloat16 and
// kInt4 caches: q / sqrt(headDim) (saturating), the decoded K and V, and the probabilities are multiplied as fp16 and
// added in fp32. kFloat32 and kBFloat16 caches: fp32 throughout, slowly. A query does not see later positions, except
// that a NaN or infinity in V of a later position of its own prompt may reach it.
void prefillAttention(Stream stream, const AttentionShape& shape, const AttentionSequence* sequences, int64_t count,
                      int64_t mostQueries);

// The same for one query per sequence, none with more than mostPositions = numPast + 1; fp32 throughout. The positions
// of a sequence are split into runs of kDecodeSplit that are attended at once and combined in order.
constexpr int64_t kDecodeSplit = 256;
constexpr int64_t decodeAttentionScratchBytes(int64_t numHeads, int64_t headDim, int64_t count, int64_t mostPositions) {
  const int64_t splits = (mostPositions + kDecodeSplit - 1) / kDecodeSplit;
  return splits <= 1 ? 0 : count * numHeads * splits * (headDim + 2) * 4;
}
// scratch: decodeAttentionScratchBytes
void decodeAttention(Stream stream, const AttentionShape& shape, const AttentionSequence* sequences, int64_t count,
                     int64_t mostPositions, void* scratch);

// ---- Choosing tokens ------------------------------------------------------------------------------------------------

// As cpu::chooseToken for each row of logits [rows, vocabSize], with weights relative to the most likely token's that
// are rounded to fp32 and to multiples of 2^-40.
void chooseTokens(Stream stream, const float* logits, const cpu::TokenChoice* choices, int64_t rows, int64_t vocabSize,
                  int32_t* tokens);

}  // namespace flexplan::cuda
