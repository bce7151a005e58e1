// Few tokens: bound by reading the weights, each of which is read once and goes straight into registers.
//   out[t, r] = sum_c x[t, c] * weight[r, c] + bias[r]
// A block has 16 rows and all tokens. Its warps share the columns: warp w takes the runs w, w + kWarps, ... of kRun depths. Their sums
// are added in the order of the warps.
#include "cuda/matmul_kernels.h"

#include "cuda/matmul.cuh"

namespace flexplan::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpSize;
constexpr int kTileRows = 16;
constexpr int kTileTokens = 8;

// Depths whose weights are on their way at once.
template <DataType kType>
constexpr int kRun = kType == DataType::kInt4 ? 4 : 2;

// c[n] += the products of one depth for tokens 8n..8n + 7.
template <DataType kType, int kTiles>
__device__ __forceinline__ void multiplyDepth(const WeightShare<kType>& weights, const std::byte* const (&x)[kTiles], int64_t depth,
                                              float (&c)[kTiles][4]) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    uint32_t a[4];
    weights.fragment(step, a);
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      const uint2 pair = *reinterpret_cast<const uint2*>(x[n] + depth * (2 * kDepth) + inputOffset<kType>(step, t));
      const uint32_t b[2] = {pair.x, pair.y};
      multiplyAdd<kType == DataType::kBFloat16>(c[n], a, b);
    }
  }
}

// sums: [kWarps][kTiles * 8 tokens][16 rows]
template <int kTiles>
__device__ __forceinline__ void putSums(const float (&c)[kTiles][4], float* sums) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, g = lane / 4, t = lane % 4;
  sums += threadIdx.x / kWarpSize * (kTiles * kTileTokens * kTileRows);
#pragma unroll
  for (int n = 0; n < kTiles; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[(n * kTileTokens + 2 * t + i % 2) * kTileRows + g + i / 2 * 8] = c[n][i];
}

template <int kTiles>
__device__ __forceinline__ void writeSums(const float* sums, const MatmulBatch& batch, const RowTile& tile) {
  const Matmul& op = batch.ops[tile.op];
  constexpr int kElements = kTiles * kTileTokens * kTileRows;
  for (int i = static_cast<int>(threadIdx.x); i < kElements; i += kThreads) {
    const int64_t row = tile.firstRow + i % kTileRows, token = i / kTileRows;
    if (row >= batch.rows[tile.op] || token >= batch.tokens) continue;
    float sum = sums[i];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) sum += sums[warp * kElements + i];
    op.out[token * op.outStride + row] = sum + (op.bias != nullptr ? op.bias[row] : 0.0f);
  }
}

template <DataType kType, int kTiles>
__global__ void __launch_bounds__(kThreads) matmulFewKernel(const MatmulBatch batch) {
  const RowTile tile = findRowTile(batch, blockIdx.x, kTileRows);
  const Matmul& op = batch.ops[tile.op];
  const int g = static_cast<int>(threadIdx.x) % kWarpSize / 4;
  const std::byte* const rows[2] = {weightRow<kType>(op, batch.rows[tile.op], tile.firstRow + g),
                                    weightRow<kType>(op, batch.rows[tile.op], tile.firstRow + g + 8)};
  // Tokens beyond the last repeat it.
  const std::byte* x[kTiles];
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const int64_t token = n * kTileTokens + g < batch.tokens ? n * kTileTokens + g : batch.tokens - 1;
    x[n] = static_cast<const std::byte*>(op.x) + token * op.xStride * 2;
  }
  const int64_t depths = (op.cols + kDepth - 1) / kDepth;
  float c[kTiles][4] = {};
  for (int64_t first = threadIdx.x / kWarpSize * kRun<kType>; first < depths; first += kWarps * kRun<kType>) {
    WeightShare<kType> weights[kRun<kType>];
#pragma unroll
    for (int i = 0; i < kRun<kType>; ++i)
      if (first + i < depths) weights[i].load(rows, first + i);
#pragma unroll
    for (int i = 0; i < kRun<kType>; ++i)
      if (first + i < depths) multiplyDepth<kType>(weights[i], x, first + i, c);
  }
  auto* const sums = reinterpret_cast<float*>(sharedMemory());
  putSums(c, sums);
  __syncthreads();
  writeSums<kTiles>(sums, batch, tile);
}

template <DataType kType, int kTiles>
void start(Stream stream, const MatmulBatch& batch) {
  const size_t sharedBytes = kWarps * kTiles * kTileTokens * kTileRows * sizeof(float);
  launch(matmulFewKernel<kType, kTiles>, {stream, countRowTiles(batch, kTileRows), 1, 1, kThreads, sharedBytes}, batch);
}

}  // namespace

void matmulFew(Stream stream, const MatmulBatch& batch) {
  withType(batch.ops[0].dtype, [&]<DataType kType>() {
    if constexpr (kType != DataType::kFloat32)
      batch.tokens <= kTileTokens ? start<kType, 1>(stream, batch) : start<kType, 2>(stream, batch);
  });
}

}  // namespace flexplan::cuda
