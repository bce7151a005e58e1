// One kernel set: what each ISA provides. Serial pieces of the operations in ops.h; ops.cpp cuts the work and spreads
// it over threads. Nothing inline is shared between the ISAs' translation units, so that the linker cannot mix their
// code.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/ops.h"

namespace flexplan::cpu {

// Units (columns, or pairs of columns: see product-inl.h) whose products are summed before they are added to the
// output: each output element is the sum over such blocks, in order. Fixed, because the order of additions is part of
// the result.
constexpr int64_t kBlockUnits = 512;
// Rows of which a block is packed at a time and then used by all tokens: 132 KiB, which stay in the L2 cache.
constexpr int64_t kPanelRows = 64;
constexpr int64_t kPanelPad = 16;
constexpr int64_t kPanelFloats = kPanelRows * (kBlockUnits + kPanelPad);

// Rows that lie `stride` bytes apart.
struct RowBlock {
  DataType dtype;
  const std::byte* data;
  int64_t stride;
  int64_t rows, cols;
};

// What lies next to what: tokens as rows, tiles of a vector of units of each of its tokens after the other, or tiles of
// transposed tokens: unit after unit, slot by slot (see product-inl.h); tiles of groups in 8 bits (see
// product_int8-inl.h).
enum class TokenOrder { kRows, kUnits, kTokens, kInt8Groups };

// How the tokens of a product lie in memory. A kernel set knows best.
struct TokenLayout {
  TokenOrder order;
  int64_t tileTokens;  // kRows: 1
  int64_t stride;      // floats from one tile (row) to the next
  bool pairs;          // of bf16 in place of floats
  // Rows of fp32 are multiplied where they lie, with any stride.
  bool asGiven() const { return order == TokenOrder::kRows && !pairs; }
  // Weights are transposed, too: once for all tokens of a piece.
  bool transposesWeights() const { return order == TokenOrder::kTokens || order == TokenOrder::kInt8Groups; }
};

// out[t, r] = sum_c x[t, c] * weight[r, c] + bias[r] (bias may be null)
struct Product {
  RowBlock weight;
  const float* bias;
  const float* x;  // in `layout`, from the beginning of a tile
  TokenLayout layout;
  int64_t tokens;
  float* out;
  int64_t outStride;
  float* panel;  // kPanelFloats of scratch, enough for kPanelRows rows
  int64_t ahead = 0;  // few tokens: bytes to what comes next from memory; 0: the next rows
};

// Queries [queryBegin, queryEnd) of all heads that use KV heads [kvHeadBegin, kvHeadEnd).
struct AttentionUnit {
  AttentionShape shape;
  AttentionSequence sequence;
  int64_t rowBytes, headBytes;  // of one position; of one head's K (or V) in it
  int64_t kvHeadBegin, kvHeadEnd, queryBegin, queryEnd;
  float* scratch;  // attentionScratchFloats()
  float* scores;   // sparse attention: (query rows of a KV head + 1) x the unit's positions up to the end of a chunk
};

struct Kernels {
  const char* name;
  // For a product of `tokens` tokens (and for all pieces of it); exact: tokens stay fp32.
  TokenLayout (*tokenLayout)(DataType weight, int64_t tokens, int64_t cols, bool exact);
  // Tokens from the beginning of a tile.
  void (*packTokens)(const float* x, int64_t xStride, int64_t tokens, int64_t cols, const TokenLayout& layout,
                     float* out);
  void (*multiply)(const Product& product);
  void (*attend)(const AttentionUnit& unit);
  int64_t (*attentionScratchFloats)(const AttentionUnit& unit);  // its scratch need not be there yet
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
// The set in use: the best, or the one that FLEXPLAN_ISA names. Throws Error kBadInput when this machine cannot run
// that.
const Kernels& kernels();
// Uses another of availableKernels() from now on. For tests and measurements; not while kernels run.
void useKernels(const Kernels& kernels);

}  // namespace flexplan::cpu
