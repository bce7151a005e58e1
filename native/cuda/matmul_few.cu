// Few tokens: bound by reading the weights, each of which is read once and goes straight into registers.
//   out[t, r] = sum_c x[t, c] * weight[r, c] + bias[r]
// A block has 16 rows and all tokens (of an expert: up to 16). Its warps share the columns: warp w takes the runs w, w
// + kWarps, ... of kRun depths. Their sums are added in the order of the warps.
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
__device__ __forceinline__ void multiplyDepth(const WeightShare<kType>& weights, const std::byte* const (&x)[kTiles],
                                              int64_t depth, float (&c)[kTiles][4]) {
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
__device__ __forceinline__ void writeSums(const float* sums, const Matmul& op, const Tile& tile) {
  constexpr int kElements = kTiles * kTileTokens * kTileRows;
  for (int i = static_cast<int>(threadIdx.x); i < kElements; i += kThreads) {
    const int64_t row = tile.firstRow + i % kTileRows, token = tile.firstToken + i / kTileRows;
    if (row >= tile.rows || token >= tile.endToken) continue;
    float sum = sums[i];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) sum += sums[warp * kElements + i];
    op.out[token * op.outStride + row] = sum + (op.bias != nullptr ? op.bias[row] : 0.0f);
  }
}

template <DataType kType, int kTiles, typename Batch>
__global__ void __launch_bounds__(kThreads) matmulFewKernel(const Batch batch) {
  const Tile tile = findTile(batch, blockIdx.x, kTileRows, blockIdx.y, kTiles * kTileTokens);
  if (tile.firstToken >= tile.endToken) return;
  const Matmul& op = batch.ops[tile.op];
  const int g = static_cast<int>(threadIdx.x) % kWarpSize / 4;
  const std::byte* const rows[2] = {weightRow<kType>(op, tile.rows, tile.firstRow + g),
                                    weightRow<kType>(op, tile.rows, tile.firstRow + g + 8)};
  // Tokens beyond the last repeat it.
  const std::byte* x[kTiles];
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const int64_t own = tile.firstToken + n * kTileTokens + g, token = own < tile.endToken ? own : tile.endToken - 1;
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
  writeSums<kTiles>(sums, op, tile);
}

template <DataType kType, int kTiles, typename Batch>
void start(Stream stream, const Batch& batch) {
  const size_t sharedBytes = kWarps * kTiles * kTileTokens * kTileRows * sizeof(float);
  launch(
      matmulFewKernel<kType, kTiles, Batch>,
      {stream, countRowTiles(batch, kTileRows), mostTokenTiles(batch, kTiles * kTileTokens), 1, kThreads, sharedBytes},
      batch);
}

template <typename Batch>
void choose(Stream stream, const Batch& batch) {
  withType(typeOf(batch), [&]<DataType kType>() {
    if constexpr (kType != DataType::kFloat32)
      tokensOfOne(batch) <= kTileTokens ? start<kType, 1>(stream, batch) : start<kType, 2>(stream, batch);
  });
}

}  // namespace

void matmulFew(Stream stream, const MatmulBatch& batch) { choose(stream, batch); }
void matmulFew(Stream stream, const ExpertBatch& batch) { choose(stream, batch); }

}  // namespace flexplan::cuda
