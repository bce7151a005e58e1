// Chooses the kernel; rounds x.
#include "cuda/matmul.cuh"

#include "cuda/matmul_kernels.h"

namespace flexplan::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 8;

// One thread: 8 columns of one token.
template <bool kBFloat>
__global__ void matmulInputKernel(const float* x, int64_t xStride, int64_t tokens, int64_t cols, int64_t stride,
                                  uint4* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, vectors = stride / kVector;
  if (i >= tokens * vectors) return;
  const int64_t col = i % vectors * kVector;
  const float* const from = x + i / vectors * xStride + col;
  uint32_t pairs[4];
#pragma unroll
  for (int p = 0; p < 4; ++p) {
    const float low = col + 2 * p < cols ? from[2 * p] : 0, high = col + 2 * p + 1 < cols ? from[2 * p + 1] : 0;
    pairs[p] = kBFloat ? packBFloats(low, high) : packHalves(low, high);
  }
  out[i] = uint4{pairs[0], pairs[1], pairs[2], pairs[3]};
}

// Whether the tensor-core kernels can read the weights.
bool fitsFragments(const Matmul& op) {
  if (op.dtype == DataType::kInt4) return true;
  bool fits = op.dtype != DataType::kFloat32 && op.cols % kDepth == 0;
  for (int i = 0; i < op.numPieces; ++i) fits = fits && isAligned(op.pieces[i].data, 16);
  return fits;
}

}  // namespace

MatmulBatch makeBatch(const Matmul* ops, int count, int64_t tokens) {
  MatmulBatch batch{};
  batch.tokens = tokens;
  for (int i = 0; i < count; ++i) {
    int64_t rows = 0;
    for (int p = 0; p < ops[i].numPieces; ++p) rows += ops[i].pieces[p].rows;
    if (rows == 0) continue;
    batch.ops[batch.count] = ops[i];
    batch.rows[batch.count++] = rows;
  }
  return batch;
}

int64_t countRowTiles(const MatmulBatch& batch, int64_t tileRows) {
  int64_t tiles = 0;
  for (int i = 0; i < batch.count; ++i) tiles += ceilDivide(batch.rows[i], tileRows);
  return tiles;
}

void matmulInput(Stream stream, DataType weights, const float* x, int64_t xStride, int64_t tokens, int64_t cols,
                 void* out) {
  const int64_t stride = matmulInputStride(cols);
  const Launch shape{stream, ceilDivide(tokens * stride / kVector, kThreads), 1, 1, kThreads, 0};
  auto* const vectors = static_cast<uint4*>(out);
  if (weights == DataType::kBFloat16)
    launch(matmulInputKernel<true>, shape, x, xStride, tokens, cols, stride, vectors);
  else
    launch(matmulInputKernel<false>, shape, x, xStride, tokens, cols, stride, vectors);
}

void matmul(Stream stream, const Matmul* ops, int count, int64_t tokens) {
  const MatmulBatch batch = makeBatch(ops, count, tokens);
  if (batch.count == 0 || tokens <= 0) return;
  for (int i = 0; i < batch.count; ++i)
    if (!fitsFragments(batch.ops[i])) return matmulSimple(stream, batch);
  tokens <= kFewTokens ? matmulFew(stream, batch) : matmulMany(stream, batch);
}

void matmulByExpert(Stream stream, const Matmul* ops, const Matmul* deviceOps, int count, const int32_t* ends,
                    int64_t tokens) {
  int64_t rows = 0;
  for (int p = 0; p < ops[0].numPieces; ++p) rows += ops[0].pieces[p].rows;
  if (rows == 0 || tokens <= 0) return;
  const ExpertBatch batch{deviceOps, ends, ops[0].dtype, rows, tokens, count};
  for (int i = 0; i < count; ++i)
    if (!fitsFragments(ops[i])) return matmulSimple(stream, batch);
  tokensOfOne(batch) <= kFewTokens ? matmulFew(stream, batch) : matmulMany(stream, batch);
}

}  // namespace flexplan::cuda
