// Many tokens: bound by the tensor cores. Weights go from memory straight into registers, one depth ahead of their use;
// x goes through shared memory, where all warps of a block find it.
//   out[t, r] = sum_c x[t, c] * weight[r, c] + bias[r]
#include "cuda/matmul_kernels.h"

#include "cuda/matmul.cuh"

namespace flexplan::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTokenTiles = 8;  // of 8 tokens, in a warp
constexpr int kStages = 2;
constexpr int kRowBytes = 2 * kDepth;  // of x in shared memory

// How the 8 warps of a block share its tile. kRowTiles of 16 rows a warp; warps beside each other in rows, in tokens,
// and in depth, where warp w of kDepthWarps takes every kDepthWarps-th depth and the sums are added at the end.
template <int kRowTilesOf, int kRowWarpsOf, int kTokenWarpsOf, int kDepthWarpsOf>
struct Shape {
  static constexpr int kRowTiles = kRowTilesOf, kRowWarps = kRowWarpsOf, kTokenWarps = kTokenWarpsOf,
                       kDepthWarps = kDepthWarpsOf;
  static constexpr int kRows = 16 * kRowTiles * kRowWarps, kTokens = 8 * kTokenTiles * kTokenWarps;
  static constexpr int kStageBytes = kDepthWarps * kTokens * kRowBytes;
  static constexpr size_t kSharedBytes = kStages * kStageBytes;
  static_assert(kRowWarps * kTokenWarps * kDepthWarps * kWarpSize == kThreads && kSharedBytes <= 48 * 1024);
};
using Wide = Shape<2, 4, 2, 1>;   // 128 rows x 128 tokens
using Narrow = Shape<1, 4, 1, 2>;  // 64 rows x 64 tokens: more blocks
static_assert(Narrow::kTokens == kSomeTokens);

// Where 16 bytes of row `row` lie in shared memory: moved so that the 8 (or, of 8 bytes, 16) lanes that read together
// meet no bank twice.
__device__ __forceinline__ int swizzled(int row, int byte) {
  return row * kRowBytes + (byte ^ (((row & 1) << 2 | (row & 2)) << 4));
}

// The warp's place in the block.
template <typename S>
struct Place {
  int rowWarp, tokenWarp, depthWarp;
  __device__ __forceinline__ Place() {
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    rowWarp = warp % S::kRowWarps;
    tokenWarp = warp / S::kRowWarps % S::kTokenWarps;
    depthWarp = warp / (S::kRowWarps * S::kTokenWarps);
  }
};

// Starts to copy x of kDepthWarps depths. Tokens and depths beyond the last are zeros.
template <typename S>
__device__ __forceinline__ void copyInput(const Matmul& op, const Tile& tile, int64_t firstDepth, int64_t depths,
                                          std::byte* stage) {
  constexpr int kPieces = kRowBytes / 16;
  for (int i = static_cast<int>(threadIdx.x); i < S::kDepthWarps * S::kTokens * kPieces; i += kThreads) {
    const int piece = i % kPieces, token = i / kPieces % S::kTokens, d = i / kPieces / S::kTokens;
    const bool exists = tile.firstToken + token < tile.endToken && firstDepth + d < depths;
    const std::byte* const from = static_cast<const std::byte*>(op.x) +
                                  ((tile.firstToken + token) * op.xStride + (firstDepth + d) * kDepth) * 2 + piece * 16;
    copyAsync(stage + d * S::kTokens * kRowBytes + swizzled(token, piece * 16), exists ? from : nullptr);
  }
}

template <typename S>
using Sums = float[S::kRowTiles][kTokenTiles][4];

// The products of one depth. x: the depth's tokens of this warp in shared memory.
template <DataType kType, typename S>
__device__ __forceinline__ void multiplyDepth(const WeightShare<kType> (&weights)[S::kRowTiles], const std::byte* x,
                                              Sums<S>& c) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    uint32_t a[S::kRowTiles][4];
#pragma unroll
    for (int m = 0; m < S::kRowTiles; ++m) weights[m].fragment(step, a[m]);
    const int offset = inputOffset<kType>(step, t);
#pragma unroll
    for (int n = 0; n < kTokenTiles; ++n) {
      const uint2 pair = *reinterpret_cast<const uint2*>(x + swizzled(8 * n + g, offset & ~15) + (offset & 15));
      const uint32_t b[2] = {pair.x, pair.y};
#pragma unroll
      for (int m = 0; m < S::kRowTiles; ++m) multiplyAdd<kType == DataType::kBFloat16>(c[m][n], a[m], b);
    }
  }
}

// Adds the sums of the depth warps to those of the first, through shared memory.
template <typename S>
__device__ __forceinline__ void addDepthWarps(const Place<S>& place, Sums<S>& c, float* shared) {
  constexpr int kSums = S::kRowTiles * kTokenTiles * 4, kOthers = kThreads / S::kDepthWarps;
  static_assert(S::kDepthWarps <= 2 && (S::kDepthWarps == 1 || kSums * kOthers * sizeof(float) <= S::kSharedBytes));
  if constexpr (S::kDepthWarps == 2) {
    const int thread = static_cast<int>(threadIdx.x) % kOthers;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kSums; ++i)
      if (place.depthWarp == 1) shared[i * kOthers + thread] = c[i / (4 * kTokenTiles)][i / 4 % kTokenTiles][i % 4];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kSums; ++i)
      if (place.depthWarp == 0) c[i / (4 * kTokenTiles)][i / 4 % kTokenTiles][i % 4] += shared[i * kOthers + thread];
  }
}

template <typename S>
__device__ __forceinline__ void write(const Matmul& op, const Tile& tile, int64_t firstRow, int64_t firstToken,
                                      const Sums<S>& c) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int m = 0; m < S::kRowTiles; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = firstRow + 16 * m + 8 * half + g;
      if (row >= tile.rows) continue;
      const float bias = op.bias != nullptr ? op.bias[row] : 0.0f;
#pragma unroll
      for (int n = 0; n < kTokenTiles; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int64_t token = firstToken + 8 * n + 2 * t + i;
          if (token < tile.endToken) op.out[token * op.outStride + row] = c[m][n][2 * half + i] + bias;
        }
    }
}

// Blocks that run at the same time should share weights and x in the L2 cache: all row tiles for a few token tiles,
// then the next.
constexpr int64_t kTokenTilesAtOnce = 8;
struct BlockTile {
  int64_t rowTile, tokenTile;
};
__device__ __forceinline__ BlockTile findBlock(int64_t block, int64_t rowTiles, int64_t tokenTiles) {
  const int64_t group = block / (rowTiles * kTokenTilesAtOnce), rest = block % (rowTiles * kTokenTilesAtOnce);
  const int64_t left = tokenTiles - group * kTokenTilesAtOnce,
                wide = left < kTokenTilesAtOnce ? left : kTokenTilesAtOnce;
  return {rest / wide, group * kTokenTilesAtOnce + rest % wide};
}

template <DataType kType, typename S, typename Batch>
__global__ void __launch_bounds__(kThreads) matmulManyKernel(const Batch batch, int64_t rowTiles, int64_t tokenTiles) {
  const BlockTile block = findBlock(blockIdx.x, rowTiles, tokenTiles);
  const Tile tile = findTile(batch, block.rowTile, S::kRows, block.tokenTile, S::kTokens);
  if (tile.firstToken >= tile.endToken) return;
  const Matmul& op = batch.ops[tile.op];
  const Place<S> place;
  const int g = static_cast<int>(threadIdx.x) % kWarpSize / 4;
  const int64_t firstRow = tile.firstRow + place.rowWarp * 16 * S::kRowTiles;
  const std::byte* rows[S::kRowTiles][2];
#pragma unroll
  for (int m = 0; m < S::kRowTiles; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      rows[m][half] = weightRow<kType>(op, tile.rows, firstRow + 16 * m + 8 * half + g);

  const int64_t depths = (op.cols + kDepth - 1) / kDepth;
  std::byte* const shared = sharedMemory();
  WeightShare<kType> weights[S::kRowTiles], next[S::kRowTiles];
  const auto load = [&](WeightShare<kType>(&to)[S::kRowTiles], int64_t depth) {
    // A depth that is not there meets zeros in x; what it is multiplied with must only be finite.
    depth = depth < depths ? depth : depths - 1;
#pragma unroll
    for (int m = 0; m < S::kRowTiles; ++m) to[m].load(rows[m], depth);
  };
  Sums<S> c = {};
  copyInput<S>(op, tile, 0, depths, shared);
  copyAsyncCommit();
  load(weights, place.depthWarp);
  for (int64_t depth = 0, stage = 0; depth < depths; depth += S::kDepthWarps, stage = (stage + 1) % kStages) {
    copyAsyncWait<0>();
    // This stage has arrived for all warps, and all are done with the one before, which is filled again.
    __syncthreads();
    if (depth + S::kDepthWarps < depths) {
      copyInput<S>(op, tile, depth + S::kDepthWarps, depths, shared + (stage + 1) % kStages * S::kStageBytes);
      copyAsyncCommit();
      load(next, depth + S::kDepthWarps + place.depthWarp);
    }
    const int firstOfWarp = place.depthWarp * S::kTokens + place.tokenWarp * 8 * kTokenTiles;
    multiplyDepth<kType, S>(weights, shared + stage * S::kStageBytes + firstOfWarp * kRowBytes, c);
#pragma unroll
    for (int m = 0; m < S::kRowTiles; ++m) weights[m] = next[m];
  }
  addDepthWarps<S>(place, c, reinterpret_cast<float*>(shared));
  if (place.depthWarp == 0) write<S>(op, tile, firstRow, tile.firstToken + place.tokenWarp * 8 * kTokenTiles, c);
}

template <DataType kType, typename S, typename Batch>
void start(Stream stream, const Batch& batch) {
  const int64_t rowTiles = countRowTiles(batch, S::kRows), tokenTiles = mostTokenTiles(batch, S::kTokens);
  launch(matmulManyKernel<kType, S, Batch>, {stream, rowTiles * tokenTiles, 1, 1, kThreads, S::kSharedBytes}, batch,
         rowTiles, tokenTiles);
}

template <typename Batch>
void choose(Stream stream, const Batch& batch) {
  withType(typeOf(batch), [&]<DataType kType>() {
    if constexpr (kType != DataType::kFloat32)
      tokensOfOne(batch) <= kSomeTokens ? start<kType, Narrow>(stream, batch) : start<kType, Wide>(stream, batch);
  });
}

}  // namespace

void matmulMany(Stream stream, const MatmulBatch& batch) { choose(stream, batch); }
void matmulMany(Stream stream, const ExpertBatch& batch) { choose(stream, batch); }

}  // namespace flexplan::cuda
