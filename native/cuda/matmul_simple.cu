// fp32 weights, and 16-bit weights of odd sizes: fp32 throughout, columns added one after the other.
//   out[t, r] = bias[r] + sum_c x[t, c] * weight[r, c]
#include "cuda/matmul_kernels.h"

#include "cuda/matmul.cuh"

namespace flexplan::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 64;   // rows and tokens of a block
constexpr int kCols = 16;   // columns in shared memory at once
constexpr int kEach = 4;    // rows and tokens of a thread, 16 apart
constexpr int kPitch = kTile + 1;  // of a column in shared memory: columns are written by neighbouring threads
constexpr size_t kSharedBytes = 2 * kCols * kPitch * sizeof(float);

// to[c][i] = columns col + c of rows first + i, zero where there is none. rowAt(i): where row i begins.
template <DataType kType, typename RowAt>
__device__ __forceinline__ void copyTile(RowAt&& rowAt, int64_t rows, int64_t col, int64_t cols, float* to) {
  for (int i = static_cast<int>(threadIdx.x); i < kTile * kCols; i += kThreads) {
    const int row = i / kCols, c = i % kCols;
    to[c * kPitch + row] = row < rows && col + c < cols ? element<kType>(rowAt(row), col + c) : 0.0f;
  }
}

template <DataType kType>
__global__ void __launch_bounds__(kThreads) matmulSimpleKernel(const MatmulBatch batch) {
  const RowTile tile = findRowTile(batch, blockIdx.x, kTile);
  const Matmul& op = batch.ops[tile.op];
  const int64_t firstToken = static_cast<int64_t>(blockIdx.y) * kTile, rows = batch.rows[tile.op];
  auto* const weights = reinterpret_cast<float*>(sharedMemory());
  float* const x = weights + kCols * kPitch;
  const int ownRow = static_cast<int>(threadIdx.x) % 16, ownToken = static_cast<int>(threadIdx.x) / 16;
  float sums[kEach][kEach] = {};
  for (int64_t col = 0; col < op.cols; col += kCols) {
    __syncthreads();
    copyTile<kType>([&](int64_t row) { return weightRow<kType>(op, rows, tile.firstRow + row); }, rows - tile.firstRow, col,
                    op.cols, weights);
    copyTile<kType>([&](int64_t token) {
      return static_cast<const std::byte*>(op.x) + bytesOf<kType>((firstToken + token) * op.xStride);
    }, batch.tokens - firstToken, col, op.cols, x);
    __syncthreads();
    for (int c = 0; c < kCols; ++c)
#pragma unroll
      for (int r = 0; r < kEach; ++r)
#pragma unroll
        for (int t = 0; t < kEach; ++t)
          sums[r][t] = fmaf(weights[c * kPitch + ownRow + 16 * r], x[c * kPitch + ownToken + 16 * t], sums[r][t]);
  }
#pragma unroll
  for (int r = 0; r < kEach; ++r)
#pragma unroll
    for (int t = 0; t < kEach; ++t) {
      const int64_t row = tile.firstRow + ownRow + 16 * r, token = firstToken + ownToken + 16 * t;
      if (row < rows && token < batch.tokens)
        op.out[token * op.outStride + row] = sums[r][t] + (op.bias != nullptr ? op.bias[row] : 0.0f);
    }
}

}  // namespace

void matmulSimple(Stream stream, const MatmulBatch& batch) {
  const Launch shape{stream, countRowTiles(batch, kTile), ceilDivide(batch.tokens, kTile), 1, kThreads, kSharedBytes};
  withType(batch.ops[0].dtype, [&]<DataType kType>() {
    if constexpr (kType != DataType::kInt4) launch(matmulSimpleKernel<kType>, shape, batch);
  });
}

}  // namespace flexplan::cuda
