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

template <DataType kType, typename Batch>
__global__ void __launch_bounds__(kThreads) matmulSimpleKernel(const Batch batch) {
  const Tile tile = findTile(batch, blockIdx.x, kTile, blockIdx.y, kTile);
  if (tile.firstToken >= tile.endToken) return;
  const Matmul& op = batch.ops[tile.op];
  auto* const weights = reinterpret_cast<float*>(sharedMemory());
  float* const x = weights + kCols * kPitch;
  const int ownRow = static_cast<int>(threadIdx.x) % 16, ownToken = static_cast<int>(threadIdx.x) / 16;
  float sums[kEach][kEach] = {};
  for (int64_t col = 0; col < op.cols; col += kCols) {
    __syncthreads();
    copyTile<kType>([&](int64_t row) { return weightRow<kType>(op, tile.rows, tile.firstRow + row); },
                    tile.rows - tile.firstRow, col, op.cols, weights);
    copyTile<kType>([&](int64_t token) {
      return static_cast<const std::byte*>(op.x) + bytesOf<kType>((tile.firstToken + token) * op.xStride);
    }, tile.endToken - tile.firstToken, col, op.cols, x);
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
      const int64_t row = tile.firstRow + ownRow + 16 * r, token = tile.firstToken + ownToken + 16 * t;
      if (row < tile.rows && token < tile.endToken)
        op.out[token * op.outStride + row] = sums[r][t] + (op.bias != nullptr ? op.bias[row] : 0.0f);
    }
}

template <typename Batch>
void start(Stream stream, const Batch& batch) {
  const Launch shape{stream, countRowTiles(batch, kTile), mostTokenTiles(batch, kTile), 1, kThreads, kSharedBytes};
  withType(typeOf(batch), [&]<DataType kType>() {
    if constexpr (kType != DataType::kInt4) launch(matmulSimpleKernel<kType, Batch>, shape, batch);
  });
}

}  // namespace

void matmulSimple(Stream stream, const MatmulBatch& batch) { start(stream, batch); }
void matmulSimple(Stream stream, const ExpertBatch& batch) { start(stream, batch); }

}  // namespace flexplan::cuda
