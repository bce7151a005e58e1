// One kernel set: what each ISA provides. Serial pieces of the operations in ops.h; ops.cpp cuts the work and spreads it over
// threads. Nothing inline is shared between the ISAs' translation units, so that the linker cannot mix their code.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/ops.h"

namespace flexplan::cpu {

// Columns whose products are chained before they are added to the output: each output element is the sum over such blocks, in
// order. Fixed, because the order of additions is part of the result; short, because a chain's rounding errors add up.
constexpr int64_t kColumnBlock = 256;
// Rows whose column block is converted to fp32 at a time and then used by all tokens: 64 KiB, which stay in the L2 cache.
constexpr int64_t kPanelRows = 64;
constexpr int64_t kPanelPad = 16;
constexpr int64_t kPanelFloats = kPanelRows * (kColumnBlock + kPanelPad);

// Rows that lie `stride` bytes apart.
struct RowBlock {
  DataType dtype;
  const std::byte* data;
  int64_t stride;
  int64_t rows, cols;
};

// out[t, r] = sum_c x[t, c] * weight[r, c] + bias[r] (bias may be null)
struct Product {
  RowBlock weight;
  const float* bias;
  const float* x;
  int64_t xStride, tokens;
  float* out;
  int64_t outStride;
  float* panel;  // kPanelFloats of scratch
};

// Queries [queryBegin, queryEnd) of all heads that use KV heads [kvHeadBegin, kvHeadEnd).
struct AttentionUnit {
  AttentionShape shape;
  AttentionSequence sequence;
  int64_t rowBytes, headBytes;  // of one position; of one head's K (or V) in it
  int64_t kvHeadBegin, kvHeadEnd, queryBegin, queryEnd;
  float* scratch;  // attentionScratchFloats()
};

struct Kernels {
  const char* name;
  void (*multiply)(const Product& product);
  void (*attend)(const AttentionUnit& unit);
  int64_t (*attentionScratchFloats)(const AttentionShape& shape, int64_t kvHeads, int64_t queries);
  // One row.
  void (*toFloat)(DataType from, const std::byte* row, int64_t cols, float* out);
  void (*fromFloat)(DataType to, const float* row, int64_t cols, std::byte* out);
  void (*fitInt4)(const float* row, int64_t cols, std::byte* out);
  // One token; bias may be null.
  void (*layerNorm)(const float* x, const float* weight, const float* bias, float epsilon, int64_t size, float* y);
  void (*rmsNorm)(const float* x, const float* weight, float epsilon, int64_t size, float* y);
  void (*add)(const float* x, int64_t count, float* y);
  void (*activate)(Activation f, const float* gate, int64_t count, float* x);
  // One token; cosines, sines: [headDim / 2].
  void (*rope)(const float* cosines, const float* sines, int64_t numHeads, int64_t headDim, float* x);
  // Reads memory with the widest loads and returns something that depends on all of it.
  uint64_t (*readMemory)(const std::byte* data, size_t bytes);
};

// Best last. Never empty: the generic set is always there.
std::span<const Kernels* const> availableKernels();
// The set in use: the best, or the one that FLEXPLAN_ISA names. Throws Error kBadInput when this machine cannot run that.
const Kernels& kernels();
// Uses another of availableKernels() from now on. For tests and measurements; not while kernels run.
void useKernels(const Kernels& kernels);

}  // namespace flexplan::cpu
