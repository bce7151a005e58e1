// Attention of single queries: bound by reading K and V, each of which is read once for up to kHeads query heads that
// share it.
//   out = sum_p w_p v_p / sum_p w_p,   w_p = 2^(q k_p - max)
// A block attends a run of positions, kChunk at a time: scores, then the new maximum m', and for sum and output alike
//   total = total * 2^(m - m') + sum over the chunk of 2^(s - m') * (1 or v)
// Runs of kDecodeSplit positions are attended at once by different blocks, and combined in their order.
#include "cuda/attention.cuh"
#include "cuda/warp.cuh"

namespace flexplan::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kTeam = 16;  // lanes that share a row of K or V
constexpr int kTeams = kThreads / kTeam;
constexpr int kChunk = 128;
constexpr int kAtOnce = 4;  // rows of a team whose bytes are on their way
constexpr int kSlice = 64;  // head dimensions: 4 of each lane of a team, a group of int4
constexpr int kMostHeads = kWarps;  // each warp keeps the maximum and sum of one

// Which head dimension is value i of a lane's 4 in a slice: neighbours, or the nibbles of one word.
template <DataType kType>
__device__ __forceinline__ int dimensionOf(int slice, int lane, int i) {
  return slice * kSlice + (kType == DataType::kInt4 ? lane + 16 * i : 4 * lane + i);
}

// A lane's share of one row, as stored.
template <DataType kType, int kSlices>
struct RowShare {
  uint32_t words[kSlices][kType == DataType::kFloat32 ? 4 : 2];  // kInt4: header, word

  // whole: the head's dimensions come in fours that are aligned.
  __device__ __forceinline__ void load(const std::byte* row, int lane, int headDim, bool whole) {
#pragma unroll
    for (int s = 0; s < kSlices; ++s) {
      const int first = dimensionOf<kType>(s, lane, 0);
      if constexpr (kType == DataType::kInt4) {
        if (s * kSlice >= headDim) break;
        words[s][0] = int4Header(row + s * kInt4Bytes);
        words[s][1] = reinterpret_cast<const uint16_t*>(row + s * kInt4Bytes + kInt4Header)[lane];
      } else if (whole && first < headDim) {
        loadFour(row + bytesOf<kType>(first), words[s]);
      } else {
        loadPartly(row, first, headDim, words[s]);
      }
    }
  }

  __device__ __forceinline__ float value(int slice, int i) const {
    if constexpr (kType == DataType::kInt4) {
      const uint32_t header = words[slice][0];
      return fmaf(nibbleToFloat(words[slice][1] >> 4 * i & 15), int4Scale(header), int4Minimum(header));
    } else if constexpr (kType == DataType::kFloat32) {
      return __uint_as_float(words[slice][i]);
    } else {
      const auto bits = static_cast<uint16_t>(words[slice][i / 2] >> 16 * (i % 2));
      return kType == DataType::kFloat16 ? halfToFloat(bits) : bfloatToFloat(bits);
    }
  }

 private:
  __device__ __forceinline__ static void loadFour(const std::byte* from, uint32_t (&to)[2]) {
    const uint2 pair = *reinterpret_cast<const uint2*>(from);
    to[0] = pair.x;
    to[1] = pair.y;
  }
  __device__ __forceinline__ static void loadFour(const std::byte* from, uint32_t (&to)[4]) {
    const uint4 four = *reinterpret_cast<const uint4*>(from);
    to[0] = four.x;
    to[1] = four.y;
    to[2] = four.z;
    to[3] = four.w;
  }
  template <int kWords>
  __device__ __forceinline__ static void loadPartly(const std::byte* row, int first, int headDim,
                                                    uint32_t (&to)[kWords]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i * kWords % 4 == 0) to[i * kWords / 4] = 0;
      if (first + i >= headDim) continue;
      if constexpr (kWords == 4) to[i] = reinterpret_cast<const uint32_t*>(row)[first + i];
      if constexpr (kWords == 2)
        to[i / 2] |= static_cast<uint32_t>(reinterpret_cast<const uint16_t*>(row)[first + i]) << 16 * (i % 2);
    }
  }
};

// What a block works on: one query, kHeads query heads from firstHead on that share kvHead, positions [begin, end).
struct Unit {
  AttentionSequence sequence;
  int query, kvHead, firstHead, numHeads, begin, end;
  bool whole;
};

// Sums v[h] over the lanes of a team for all heads. The lane whose number ends in zeros below headOfLane's bits holds
// its head's sum.
template <int kHeads>
__device__ __forceinline__ float sumTeam(float (&v)[kHeads]) {
  const int lane = static_cast<int>(threadIdx.x) % kTeam;
  int distance = kTeam / 2;
#pragma unroll
  for (int n = kHeads / 2; n > 0; n /= 2, distance /= 2)
#pragma unroll
    for (int i = 0; i < n; ++i) {
      // Half of the lanes go on with the lower heads, half with the upper.
      const bool upper = (lane & distance) != 0;
      const float given = upper ? v[i] : v[i + n], kept = upper ? v[i + n] : v[i];
      v[i] = kept + __shfl_xor_sync(kAllLanes, given, distance);
    }
#pragma unroll
  for (; distance > 0; distance /= 2) v[0] += __shfl_xor_sync(kAllLanes, v[0], distance);
  return v[0];
}
template <int kHeads>
__device__ __forceinline__ int headOfLane(int lane) {
  return lane * kHeads / kTeam;
}

// Shared memory of a block.
template <int kHeads, int kSlices>
struct Shared {
  float weights[kHeads][kChunk];  // scores, then 2^(s - m')
  float shrink[kHeads], sums[kHeads], maxima[kHeads];
  float outputs[kTeams][kHeads][kSlices * kSlice];
};

template <DataType kType, int kHeads, int kSlices>
__device__ __forceinline__ void loadQueries(const AttentionCall& call, const Unit& u, float (&q)[kHeads][kSlices][4]) {
  const int lane = static_cast<int>(threadIdx.x) % kTeam;
#pragma unroll
  for (int h = 0; h < kHeads; ++h)
#pragma unroll
    for (int s = 0; s < kSlices; ++s)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int dimension = dimensionOf<kType>(s, lane, i), head = u.firstHead + smaller(h, u.numHeads - 1);
        const float* const from = u.sequence.q + u.query * call.shape.qStride + head * call.shape.headDim;
        q[h][s][i] = dimension < call.shape.headDim ? from[dimension] * call.scale : 0.0f;
      }
}

// Calls body(position in the chunk, row) for the team's positions of the chunk that are attended, kAtOnce rows loaded
// together. All lanes of a warp take the same path: body may exchange values. exists: whether the position is attended.
template <DataType kType, int kSlices, typename Body>
__device__ __forceinline__ void forEachRow(const AttentionCall& call, const Unit& u, int chunk, int which,
                                           Body&& body) {
  const int team = static_cast<int>(threadIdx.x) / kTeam, lane = static_cast<int>(threadIdx.x) % kTeam;
  for (int first = 0; first < kChunk && chunk + first < u.end; first += kTeams * kAtOnce) {
    RowShare<kType, kSlices> rows[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      // Positions beyond the run repeat one of it.
      const int position = smaller(larger(chunk + first + i * kTeams + team, u.begin), u.end - 1);
      rows[i].load(kvHeadRow(call, u.sequence, position, u.kvHead, which), lane, static_cast<int>(call.shape.headDim),
                   u.whole);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int position = chunk + first + i * kTeams + team;
      body(first + i * kTeams + team, position >= u.begin && position < u.end, rows[i]);
    }
  }
}

template <DataType kType, int kHeads, int kSlices>
__device__ __forceinline__ void putScores(const AttentionCall& call, const Unit& u, int chunk,
                                          const float (&q)[kHeads][kSlices][4], Shared<kHeads, kSlices>& shared) {
  const int lane = static_cast<int>(threadIdx.x) % kTeam;
  forEachRow<kType, kSlices>(call, u, chunk, 0, [&](int at, bool exists, const RowShare<kType, kSlices>& row) {
    float products[kHeads] = {};
#pragma unroll
    for (int s = 0; s < kSlices; ++s)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int dimension = dimensionOf<kType>(s, lane, i);
        const float value = dimension < call.shape.headDim ? row.value(s, i) : 0.0f;
#pragma unroll
        for (int h = 0; h < kHeads; ++h) products[h] = fmaf(q[h][s][i], value, products[h]);
      }
    const float score = sumTeam<kHeads>(products);
    if (lane % (kTeam / kHeads) == 0) shared.weights[headOfLane<kHeads>(lane)][at] = exists ? score : -INFINITY;
  });
}

// Warp h turns the scores of head h into weights, and keeps its maximum and sum.
template <int kHeads, int kSlices>
__device__ __forceinline__ void weigh(int positions, float& maximum, float& sum, Shared<kHeads, kSlices>& shared) {
  const int head = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  if (head >= kHeads) return;
  float highest = maximum, total = 0;
  for (int at = lane; at < positions; at += kWarpSize) highest = fmaxf(highest, shared.weights[head][at]);
  highest = maxLanes(highest);
  for (int at = lane; at < positions; at += kWarpSize) {
    // A chunk of a window may begin before anything that is attended.
    const float weight = highest == -INFINITY ? 0.0f : exp2f(shared.weights[head][at] - highest);
    shared.weights[head][at] = weight;
    total += weight;
  }
  const float shrink = maximum == -INFINITY ? 0.0f : exp2f(maximum - highest);
  sum = fmaf(sum, shrink, sumLanes(total));
  maximum = highest;
  if (lane == 0) shared.shrink[head] = shrink;
}

template <DataType kType, int kHeads, int kSlices>
__device__ __forceinline__ void addValues(const AttentionCall& call, const Unit& u, int chunk,
                                          float (&out)[kHeads][kSlices][4], const Shared<kHeads, kSlices>& shared) {
#pragma unroll
  for (int h = 0; h < kHeads; ++h)
#pragma unroll
    for (int s = 0; s < kSlices; ++s)
#pragma unroll
      for (int i = 0; i < 4; ++i) out[h][s][i] *= shared.shrink[h];
  forEachRow<kType, kSlices>(call, u, chunk, 1, [&](int at, bool exists, const RowShare<kType, kSlices>& row) {
    if (!exists) return;
#pragma unroll
    for (int s = 0; s < kSlices; ++s)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float value = row.value(s, i);
#pragma unroll
        for (int h = 0; h < kHeads; ++h) out[h][s][i] = fmaf(shared.weights[h][at], value, out[h][s][i]);
      }
  });
}

// Where the result of a run goes: the output itself, or (outputs not yet divided, maximum, sum) for the combination.
struct Destination {
  float* partials;  // [count, numHeads, splits, headDim + 2], or null
  int splits;
};

template <DataType kType, int kHeads, int kSlices>
__device__ __forceinline__ void write(const AttentionCall& call, const Unit& u, const Destination& to, int64_t partial,
                                      const float (&out)[kHeads][kSlices][4], Shared<kHeads, kSlices>& shared) {
  const int team = static_cast<int>(threadIdx.x) / kTeam, lane = static_cast<int>(threadIdx.x) % kTeam;
  const int headDim = static_cast<int>(call.shape.headDim);
#pragma unroll
  for (int h = 0; h < kHeads; ++h)
#pragma unroll
    for (int s = 0; s < kSlices; ++s)
#pragma unroll
      for (int i = 0; i < 4; ++i) shared.outputs[team][h][dimensionOf<kType>(s, lane, i)] = out[h][s][i];
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < u.numHeads * headDim; i += kThreads) {
    const int h = i / headDim, d = i % headDim, head = u.firstHead + h;
    float sum = 0;
#pragma unroll
    for (int n = 0; n < kTeams; ++n) sum += shared.outputs[n][h][d];
    if (to.partials == nullptr) {
      u.sequence.out[u.query * call.shape.outStride + head * headDim + d] = sum / shared.sums[h];
      continue;
    }
    float* const own = to.partials + (partial + head * to.splits) * (headDim + 2);
    own[d] = sum;
    if (d == 0) own[headDim] = shared.maxima[h];
    if (d == 0) own[headDim + 1] = shared.sums[h];
  }
}

// blockIdx.x: split, query and sequence; blockIdx.y: KV head and which kHeads of its query heads. A run is `span`
// positions.
template <DataType kType, int kHeads, int kSlices>
__global__ void __launch_bounds__(kThreads)
    attendKernel(const AttentionCall call, int mostQueries, int span, const Destination to) {
  auto& shared = *reinterpret_cast<Shared<kHeads, kSlices>*>(sharedMemory());
  const int split = static_cast<int>(blockIdx.x % to.splits), index = static_cast<int>(blockIdx.x / to.splits);
  const int passes = (call.headsPerKvHead + kHeads - 1) / kHeads, pass = static_cast<int>(blockIdx.y) % passes;
  Unit u{};
  u.sequence = call.sequences[index / mostQueries];
  u.query = index % mostQueries;
  u.kvHead = static_cast<int>(blockIdx.y) / passes;
  u.firstHead = u.kvHead * call.headsPerKvHead + pass * kHeads;
  u.numHeads = smaller(kHeads, call.headsPerKvHead - pass * kHeads);
  u.whole = call.shape.headDim % 4 == 0;
  if (u.query >= u.sequence.numQueries) return;
  const int own = u.sequence.numPast + u.query;
  u.begin = larger(firstAttended(call, own), split * span);
  u.end = smaller(own + 1, split * span + span);

  float q[kHeads][kSlices][4], out[kHeads][kSlices][4] = {};
  loadQueries<kType>(call, u, q);
  float maximum = -INFINITY, sum = 0;
  for (int chunk = u.begin / kChunk * kChunk; chunk < u.end; chunk += kChunk) {
    putScores<kType>(call, u, chunk, q, shared);
    __syncthreads();
    weigh<kHeads, kSlices>(smaller(kChunk, u.end - chunk), maximum, sum, shared);
    __syncthreads();
    addValues<kType>(call, u, chunk, out, shared);
    // The weights are overwritten by the next scores.
    __syncthreads();
  }
  if (threadIdx.x % kWarpSize == 0 && threadIdx.x / kWarpSize < kHeads) {
    shared.sums[threadIdx.x / kWarpSize] = sum;
    shared.maxima[threadIdx.x / kWarpSize] = maximum;
  }
  write<kType>(call, u, to, static_cast<int64_t>(index) * call.shape.numHeads * to.splits + split, out, shared);
}

// One block per head (x) and sequence (y).
__global__ void combineKernel(const AttentionCall call, const Destination from) {
  const int64_t headDim = call.shape.headDim, head = blockIdx.x;
  const AttentionSequence sequence = call.sequences[blockIdx.y];
  if (sequence.numQueries == 0) return;
  const int64_t first = (blockIdx.y * call.shape.numHeads + head) * from.splits;
  const int64_t splits = sequence.numPast / kDecodeSplit + 1;
  const auto partial = [&](int64_t split) { return from.partials + (first + split) * (headDim + 2); };
  float maximum = -INFINITY, sum = 0;
  for (int64_t s = 0; s < splits; ++s) maximum = fmaxf(maximum, partial(s)[headDim]);
  for (int64_t s = 0; s < splits; ++s) sum = fmaf(partial(s)[headDim + 1], exp2f(partial(s)[headDim] - maximum), sum);
  for (int64_t d = threadIdx.x; d < headDim; d += kThreads) {
    float value = 0;
    for (int64_t s = 0; s < splits; ++s) value = fmaf(partial(s)[d], exp2f(partial(s)[headDim] - maximum), value);
    sequence.out[head * headDim + d] = value / sum;
  }
}

struct Work {
  int64_t count, mostQueries, span;  // span: positions of a run
  Destination to;
};

template <DataType kType, int kHeads, int kSlices>
void start(Stream stream, const AttentionCall& call, const Work& work) {
  const int64_t passes = ceilDivide(call.headsPerKvHead, kHeads);
  launch(attendKernel<kType, kHeads, kSlices>,
         {stream, work.count * work.mostQueries * work.to.splits, call.shape.numKvHeads * passes, 1, kThreads,
          sizeof(Shared<kHeads, kSlices>)},
         call, work.mostQueries, work.span, work.to);
}

template <DataType kType, int kHeads>
void start(Stream stream, const AttentionCall& call, const Work& work) {
  if (call.shape.headDim <= kSlice) return start<kType, kHeads, 1>(stream, call, work);
  if (call.shape.headDim <= 2 * kSlice) return start<kType, kHeads, 2>(stream, call, work);
  start<kType, kHeads, 4>(stream, call, work);
}

void start(Stream stream, const AttentionCall& call, const Work& work) {
  withType(call.shape.kvType, [&]<DataType kType>() {
    if constexpr (kType == DataType::kFloat16 || kType == DataType::kInt4)
      if (call.headsPerKvHead > 1) return start<kType, kMostHeads>(stream, call, work);
    start<kType, 1>(stream, call, work);
  });
}

}  // namespace

void attendSimply(Stream stream, const AttentionCall& call, int64_t count, int64_t mostQueries) {
  start(stream, call, {count, mostQueries, kWholeSequence, {nullptr, 1}});
}

void decodeAttention(Stream stream, const AttentionShape& shape, const AttentionSequence* sequences, int64_t count,
                     int64_t mostPositions, void* scratch) {
  const AttentionCall call = makeCall(shape, sequences);
  const int splits = static_cast<int>(ceilDivide(mostPositions, kDecodeSplit));
  const Destination to{splits > 1 ? static_cast<float*>(scratch) : nullptr, splits};
  start(stream, call, {count, 1, kDecodeSplit, to});
  if (splits > 1) launch(combineKernel, {stream, shape.numHeads, count, 1, kThreads, 0}, call, to);
}

}  // namespace flexplan::cuda
