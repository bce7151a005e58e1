// Attention of many queries on the tensor cores. A block takes 64 rows, a row being one query of one of the query heads
// that share a KV head, and all positions that they attend to, kPositions at a time; for each tile of positions
//   s = q k,   m' = max(m, max s),   total = total * 2^(m - m') + sum of 2^(s - m') * (1 or v)
// While K of a tile is multiplied its V is on its way, and while V is, the K of the next.
#include "cuda/attention.cuh"
#include "cuda/mma.cuh"

namespace flexplan::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRows = 64;  // 16 of each warp

// kDim: head dimensions, padded.
template <int kDim>
struct Tile {
  static constexpr int kPositions = kDim > 128 ? 32 : 64;
  static constexpr int kPitch = 2 * kDim;  // bytes of a position in shared memory
  static constexpr int kBytes = kPositions * kPitch;
  static constexpr int kColumnTiles = kPositions / 8;
  static constexpr int kBlocksAtOnce = kDim > 128 ? 1 : kDim > 64 ? 2 : 3;  // on a multiprocessor, by their registers
};

// The rows of a block, and the positions that they attend to.
struct Block {
  AttentionSequence sequence;
  int kvHead, firstRow, begin, end;
};

// Where 16 bytes of a position lie: moved so that the 8 positions of a matrix meet no bank twice.
template <int kDim>
__device__ __forceinline__ int swizzled(int position, int piece) {
  return position * Tile<kDim>::kPitch + (piece ^ (position & 7)) * 16;
}

// Brings K (which = 0) or V (1) of a tile to shared memory as fp16. Positions and dimensions beyond the last are zeros.
template <int kDim>
__device__ __forceinline__ void startHalfTile(const AttentionCall& call, const Block& b, int first, int which,
                                              std::byte* to) {
  constexpr int kPieces = kDim / 8;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < Tile<kDim>::kPositions * kPieces; i += kThreads) {
    const int position = i / kPieces, piece = i % kPieces;
    const std::byte* from = nullptr;
    if (first + position < b.end && piece * 8 < call.shape.headDim)
      from = kvHeadRow(call, b.sequence, first + position, b.kvHead, which) + piece * 16;
    copyAsync(to + swizzled<kDim>(position, piece), from);
  }
}

// One thread: words 4t..4t + 3 of a group, whose nibbles n are dimensions 16n + 4t..16n + 4t + 3.
template <int kDim>
__device__ __forceinline__ void startInt4Tile(const AttentionCall& call, const Block& b, int first, int which,
                                              std::byte* to) {
  constexpr int kGroups = kDim / kInt4Group;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x); i < Tile<kDim>::kPositions * kGroups * 4; i += kThreads) {
    const int t = i % 4, group = i / 4 % kGroups, position = i / 4 / kGroups;
    uint32_t header = 0, words[2] = {0, 0};
    if (first + position < b.end && group * kInt4Group < call.shape.headDim) {
      const std::byte* const from = kvHeadRow(call, b.sequence, first + position, b.kvHead, which) + group * kInt4Bytes;
      header = int4Header(from);
      words[0] = reinterpret_cast<const uint32_t*>(from + kInt4Header)[2 * t];
      words[1] = reinterpret_cast<const uint32_t*>(from + kInt4Header)[2 * t + 1];
    }
#pragma unroll
    for (int n = 0; n < 4; ++n)
      *reinterpret_cast<uint2*>(to + swizzled<kDim>(position, 8 * group + 2 * n + t / 2) + t % 2 * 8) =
          uint2{int4Halves(words[0], 4 * n, header), int4Halves(words[1], 4 * n, header)};
  }
}

template <bool kInt4, int kDim>
__device__ __forceinline__ void startTile(const AttentionCall& call, const Block& b, int first, int which,
                                          std::byte* to) {
  if constexpr (kInt4) startInt4Tile<kDim>(call, b, first, which, to);
  if constexpr (!kInt4) startHalfTile<kDim>(call, b, first, which, to);
  copyAsyncCommit();
}

// Row r of the block belongs to this query; head r % headsPerKvHead of its KV head.
__device__ __forceinline__ int queryOf(const AttentionCall& call, int row) { return row / call.headsPerKvHead; }

// A warp's 16 rows of q as fragments, scaled; zeros beyond the last row and dimension.
template <int kDim>
__device__ __forceinline__ void loadQueries(const AttentionCall& call, const Block& b, int firstRow,
                                            uint32_t (&q)[kDim / 16][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = firstRow + 8 * half + g, query = queryOf(call, row);
    const int head = b.kvHead * call.headsPerKvHead + row % call.headsPerKvHead;
    const float* const from = b.sequence.q + query * call.shape.qStride + head * call.shape.headDim;
    const auto value = [&](int d) {
      return query < b.sequence.numQueries && d < call.shape.headDim ? from[d] * call.scale : 0.0f;
    };
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step)
#pragma unroll
      for (int high = 0; high < 2; ++high) {
        const int d = 16 * step + 8 * high + 2 * t;
        q[step][2 * high + half] = packHalves(value(d), value(d + 1));
      }
  }
}

// What a warp has of its rows: lane (g, t) has rows g (half 0) and g + 8 (half 1).
template <int kDim>
struct Totals {
  float out[kDim / 8][4];
  float maximum[2], sum[2];
};

// s = q k for the warp's 16 rows and all positions of the tile.
template <int kDim>
__device__ __forceinline__ void multiplyKeys(const uint32_t (&q)[kDim / 16][4], const std::byte* k,
                                             float (&s)[Tile<kDim>::kColumnTiles][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int n = 0; n < Tile<kDim>::kColumnTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[n][i] = 0;
#pragma unroll
    for (int two = 0; two < kDim / 32; ++two) {
      uint32_t keys[4];
      loadMatrices(keys, k + swizzled<kDim>(8 * n + lane % 8, 4 * two + lane / 8));
      const uint32_t first[2] = {keys[0], keys[1]}, second[2] = {keys[2], keys[3]};
      multiplyAdd<false>(s[n], q[2 * two], first);
      multiplyAdd<false>(s[n], q[2 * two + 1], second);
    }
  }
}

// -infinity where the row does not attend. own: the positions of the queries of rows g and g + 8.
template <int kDim>
__device__ __forceinline__ void mask(const AttentionCall& call, const int (&own)[2], int tile,
                                     float (&s)[Tile<kDim>::kColumnTiles][4]) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int begin = firstAttended(call, own[half]);
    if (tile + Tile<kDim>::kPositions <= own[half] + 1 && tile >= begin) continue;
#pragma unroll
    for (int n = 0; n < Tile<kDim>::kColumnTiles; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int position = tile + 8 * n + 2 * t + i;
        if (position < begin || position > own[half]) s[n][2 * half + i] = -INFINITY;
      }
  }
}

// Of the 4 lanes that share a row.
__device__ __forceinline__ float maxOfRow(float value) {
  value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, 1));
  return fmaxf(value, __shfl_xor_sync(kAllLanes, value, 2));
}
__device__ __forceinline__ float sumOfRow(float value) {
  value += __shfl_xor_sync(kAllLanes, value, 1);
  return value + __shfl_xor_sync(kAllLanes, value, 2);
}

// Scores become weights 2^(s - m'); what the rows have so far shrinks by 2^(m - m').
template <int kDim>
__device__ __forceinline__ void weigh(float (&s)[Tile<kDim>::kColumnTiles][4], Totals<kDim>& totals) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float highest = totals.maximum[half], sum = 0;
#pragma unroll
    for (int n = 0; n < Tile<kDim>::kColumnTiles; ++n)
      highest = fmaxf(highest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    highest = maxOfRow(highest);
    // Nothing attended yet: -infinity less itself would be NaN.
    const float base = highest == -INFINITY ? 0.0f : highest;
    const float shrink = exp2f(totals.maximum[half] - base);
#pragma unroll
    for (int n = 0; n < Tile<kDim>::kColumnTiles; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        s[n][2 * half + i] = exp2f(s[n][2 * half + i] - base);
        sum += s[n][2 * half + i];
      }
    totals.sum[half] = fmaf(totals.sum[half], shrink, sumOfRow(sum));
    totals.maximum[half] = highest;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d)
#pragma unroll
      for (int i = 0; i < 2; ++i) totals.out[d][2 * half + i] *= shrink;
  }
}

template <int kDim>
__device__ __forceinline__ void multiplyValues(const float (&weights)[Tile<kDim>::kColumnTiles][4], const std::byte* v,
                                               Totals<kDim>& totals) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
#pragma unroll
  for (int step = 0; step < Tile<kDim>::kPositions / 16; ++step) {
    const float(&low)[4] = weights[2 * step], (&high)[4] = weights[2 * step + 1];
    const uint32_t a[4] = {pairOfHalves(low[0], low[1]), pairOfHalves(low[2], low[3]),
                           pairOfHalves(high[0], high[1]), pairOfHalves(high[2], high[3])};
#pragma unroll
    for (int two = 0; two < kDim / 16; ++two) {
      uint32_t values[4];
      loadTransposed(values, v + swizzled<kDim>(16 * step + lane % 16, 2 * two + lane / 16));
      const uint32_t first[2] = {values[0], values[1]}, second[2] = {values[2], values[3]};
      multiplyAdd<false>(totals.out[2 * two], a, first);
      multiplyAdd<false>(totals.out[2 * two + 1], a, second);
    }
  }
}

template <int kDim>
__device__ __forceinline__ void write(const AttentionCall& call, const Block& b, int firstRow,
                                      const Totals<kDim>& totals) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpSize, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = firstRow + 8 * half + g, query = queryOf(call, row);
    if (query >= b.sequence.numQueries) continue;
    const int head = b.kvHead * call.headsPerKvHead + row % call.headsPerKvHead;
    float* const out = b.sequence.out + query * call.shape.outStride + head * call.shape.headDim;
#pragma unroll
    for (int d = 0; d < kDim / 8; ++d)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int dimension = 8 * d + 2 * t + i;
        if (dimension < call.shape.headDim) out[dimension] = totals.out[d][2 * half + i] / totals.sum[half];
      }
  }
}

// blockIdx: rows (the last ones, which attend to most, first), KV head, sequence.
template <bool kInt4, int kDim>
__global__ void __launch_bounds__(kThreads, Tile<kDim>::kBlocksAtOnce) prefillKernel(const AttentionCall call) {
  using T = Tile<kDim>;
  Block b{};
  b.sequence = call.sequences[blockIdx.z];
  b.kvHead = static_cast<int>(blockIdx.y);
  b.firstRow = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kRows;
  const int numRows = b.sequence.numQueries * call.headsPerKvHead;
  if (b.firstRow >= numRows) return;
  b.begin = firstAttended(call, b.sequence.numPast + queryOf(call, b.firstRow)) / T::kPositions * T::kPositions;
  b.end = b.sequence.numPast + queryOf(call, smaller(b.firstRow + kRows, numRows) - 1) + 1;

  std::byte* const k = sharedMemory();
  std::byte* const v = k + T::kBytes;
  startTile<kInt4, kDim>(call, b, b.begin, 0, k);
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, g = static_cast<int>(threadIdx.x) % kWarpSize / 4;
  const int firstRow = b.firstRow + warp * 16;
  const int own[2] = {b.sequence.numPast + queryOf(call, firstRow + g),
                      b.sequence.numPast + queryOf(call, firstRow + g + 8)};
  uint32_t q[kDim / 16][4];
  loadQueries<kDim>(call, b, firstRow, q);
  Totals<kDim> totals{};
  totals.maximum[0] = totals.maximum[1] = -INFINITY;
  for (int tile = b.begin; tile < b.end; tile += T::kPositions) {
    startTile<kInt4, kDim>(call, b, tile, 1, v);
    copyAsyncWait<1>();
    __syncthreads();
    float s[T::kColumnTiles][4];
    multiplyKeys<kDim>(q, k, s);
    // All warps are done with K.
    __syncthreads();
    // Beyond the last tile zeros are written, which keeps the count of groups.
    startTile<kInt4, kDim>(call, b, tile + T::kPositions, 0, k);
    mask<kDim>(call, own, tile, s);
    weigh<kDim>(s, totals);
    copyAsyncWait<1>();
    __syncthreads();
    multiplyValues<kDim>(s, v, totals);
    // All warps are done with V.
    __syncthreads();
  }
  write<kDim>(call, b, firstRow, totals);
}

template <bool kInt4, int kDim>
void start(Stream stream, const AttentionCall& call, int64_t count, int64_t mostQueries) {
  launch(prefillKernel<kInt4, kDim>,
         {stream, ceilDivide(mostQueries * call.headsPerKvHead, kRows), call.shape.numKvHeads, count, kThreads,
          2 * Tile<kDim>::kBytes},
         call);
}

template <bool kInt4>
void start(Stream stream, const AttentionCall& call, int64_t count, int64_t mostQueries) {
  if (call.shape.headDim <= 64) return start<kInt4, 64>(stream, call, count, mostQueries);
  if (call.shape.headDim <= 128) return start<kInt4, 128>(stream, call, count, mostQueries);
  start<kInt4, 256>(stream, call, count, mostQueries);
}

}  // namespace

AttentionCall makeCall(const AttentionShape& shape, const AttentionSequence* sequences) {
  if (shape.headDim > kMostHeadDim) refuseHeadDim(shape.headDim);
  AttentionCall call{};
  call.shape = shape;
  call.sequences = sequences;
  call.headsPerKvHead = static_cast<int>(shape.numHeads / shape.numKvHeads);
  call.window = static_cast<int>(shape.slidingWindow < kWholeSequence ? shape.slidingWindow : kWholeSequence);
  call.headBytes = static_cast<int64_t>(rowBytes(shape.kvType, shape.headDim));
  call.rowBytes = 2 * shape.numKvHeads * call.headBytes;
  while (int64_t{1} << call.pageShift < shape.pageRows) ++call.pageShift;
  constexpr float kLog2E = 1.44269504f;
  call.scale = kLog2E / sqrtf(static_cast<float>(shape.headDim));
  return call;
}

void prefillAttention(Stream stream, const AttentionShape& shape, const AttentionSequence* sequences, int64_t count,
                      int64_t mostQueries) {
  const AttentionCall call = makeCall(shape, sequences);
  if (shape.kvType == DataType::kInt4) return start<true>(stream, call, count, mostQueries);
  // Copies are of 8 dimensions.
  if (shape.kvType == DataType::kFloat16 && shape.headDim % 8 == 0)
    return start<false>(stream, call, count, mostQueries);
  attendSimply(stream, call, count, mostQueries);
}

}  // namespace flexplan::cuda
