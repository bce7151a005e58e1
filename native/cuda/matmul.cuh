// What the matmul kernels share: which rows a block computes, and how weights come from memory into tensor-core
// fragments.
//
// Weights are the a operand of multiplyAdd (16 rows at a time), tokens its columns b. A sum does not care in which
// order the columns of x and of the weights are taken, as long as it is the same for both; so each lane takes columns
// that lie together in memory, and no shared memory is needed to rearrange the weights. In a depth of 64 columns there
// are 4 steps of 16; in step s, lane (g, t) multiplies 4 columns of weight rows g and g + 8 and of token g, from
//   16-bit weights: 32 (s / 2) + 8 t + 4 (s % 2)      (16 bytes of a row serve two steps)
//   int4:           16 s + 4 t                        (words 4t..4t + 3 of the group, nibble s)
#pragma once

#include "cuda/mma.cuh"

namespace flexplan::cuda {

constexpr int kDepth = 64;  // columns: a group of int4, 128 bytes of 16-bit x
constexpr int kSteps = kDepth / 16;

// All the matmuls of a launch, as kernels get them: over the same tokens, ...
struct MatmulBatch {
  Matmul ops[kMostMatmuls];
  int64_t rows[kMostMatmuls];
  int64_t tokens;
  int count;
};
MatmulBatch makeBatch(const Matmul* ops, int count, int64_t tokens);

// ... or of experts that are alike, over tokens that are sorted by expert: expert e has [ends[e - 1], ends[e]).
struct ExpertBatch {
  const Matmul* ops;    // [count]
  const int32_t* ends;  // [count]
  DataType dtype;
  int64_t rows, tokens;
  int count;
};

// Tiles of `tileRows` rows in all ops together.
int64_t countRowTiles(const MatmulBatch& batch, int64_t tileRows);
inline int64_t countRowTiles(const ExpertBatch& batch, int64_t tileRows) { return ceilDivide(batch.rows, tileRows); }
// Tiles of `tileTokens` tokens, none of which has tokens of two experts: no more than so many.
inline int64_t mostTokenTiles(const MatmulBatch& batch, int64_t tileTokens) {
  return ceilDivide(batch.tokens, tileTokens);
}
inline int64_t mostTokenTiles(const ExpertBatch& batch, int64_t tileTokens) {
  return batch.tokens / tileTokens + (batch.tokens < batch.count ? batch.tokens : batch.count);
}

inline DataType typeOf(const MatmulBatch& batch) { return batch.ops[0].dtype; }
inline DataType typeOf(const ExpertBatch& batch) { return batch.dtype; }
// What the choice of a kernel goes by. Experts: on average; how many each has is known on the GPU alone.
inline int64_t tokensOfOne(const MatmulBatch& batch) { return batch.tokens; }
inline int64_t tokensOfOne(const ExpertBatch& batch) { return ceilDivide(batch.tokens, batch.count); }

// What a block computes: rows from firstRow on of an op that has `rows` of them, for tokens [firstToken, endToken).
struct Tile {
  int op;
  int64_t firstRow, rows, firstToken, endToken;
};
__device__ __forceinline__ Tile findTile(const MatmulBatch& batch, int64_t rowTile, int64_t tileRows, int64_t tokenTile,
                                         int64_t tileTokens) {
  int op = 0;
  for (; op + 1 < batch.count; ++op) {
    const int64_t tiles = (batch.rows[op] + tileRows - 1) / tileRows;
    if (rowTile < tiles) break;
    rowTile -= tiles;
  }
  return {op, rowTile * tileRows, batch.rows[op], tokenTile * tileTokens, batch.tokens};
}
// A tile of no tokens where there are fewer than mostTokenTiles.
__device__ __forceinline__ Tile findTile(const ExpertBatch& batch, int64_t rowTile, int64_t tileRows, int64_t tokenTile,
                                         int64_t tileTokens) {
  int64_t begin = 0;
  for (int op = 0; op < batch.count; ++op) {
    const int64_t end = batch.ends[op], tiles = (end - begin + tileTokens - 1) / tileTokens;
    if (tokenTile < tiles) return {op, rowTile * tileRows, batch.rows, begin + tokenTile * tileTokens, end};
    tokenTile -= tiles;
    begin = end;
  }
  return {0, 0, 0, 0, 0};
}

// Rows beyond the last repeat it.
template <DataType kType>
__device__ __forceinline__ const std::byte* weightRow(const Matmul& op, int64_t rows, int64_t row) {
  row = row < rows ? row : rows - 1;
  int piece = 0;
  while (row >= op.pieces[piece].rows) row -= op.pieces[piece++].rows;
  return op.pieces[piece].data + row * bytesOf<kType>(op.cols);
}

// One lane's share of 16 rows x kDepth columns of weights, as stored. 16-bit rows: whole depths, aligned to 16 bytes.
template <DataType kType>
struct WeightShare {
  uint4 columns[2][2];  // [row g, g + 8][step / 2]

  __device__ __forceinline__ void load(const std::byte* const (&rows)[2], int64_t depth) {
    const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int c = 0; c < 2; ++c)
        columns[r][c] = *reinterpret_cast<const uint4*>(rows[r] + (depth * kDepth + 32 * c + 8 * t) * 2);
  }
  __device__ __forceinline__ void fragment(int step, uint32_t (&a)[4]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint4& four = columns[r][step / 2];
      a[r] = step % 2 == 0 ? four.x : four.z;
      a[2 + r] = step % 2 == 0 ? four.y : four.w;
    }
  }
};

template <>
struct WeightShare<DataType::kInt4> {
  uint32_t headers[2], words[2][2];  // [row g, g + 8]

  __device__ __forceinline__ void load(const std::byte* const (&rows)[2], int64_t depth) {
    const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const std::byte* const group = rows[r] + depth * kInt4Bytes;
      headers[r] = int4Header(group);
      const auto* const own = reinterpret_cast<const uint32_t*>(group + kInt4Header) + 2 * t;
      words[r][0] = own[0];
      words[r][1] = own[1];
    }
  }
  __device__ __forceinline__ void fragment(int step, uint32_t (&a)[4]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int high = 0; high < 2; ++high) a[2 * high + r] = int4Halves(words[r][high], 4 * step, headers[r]);
  }
};

// Where lane t's 8 bytes of x for a step are, in the 128 bytes of a depth.
template <DataType kType>
__device__ __forceinline__ int inputOffset(int step, int t) {
  return kType == DataType::kInt4 ? 32 * step + 8 * t : 64 * (step / 2) + 16 * t + 8 * (step % 2);
}

}  // namespace flexplan::cuda
