// Tensor-core products, transposing loads and asynchronous copies: PTX, and the same on the CPU for the emulation.
// Lane l of a warp is written as g = l / 4, t = l % 4. Registers hold two 16-bit numbers, the lower index in the lower
// half.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/storage.cuh"

namespace flexplan::cuda {

// c += a b, c: [16, 8] fp32, a: [16, 16], b: [16, 8]      (mma.m16n8k16.row.col)
//   c[0], c[1]: row g,     columns 2t, 2t + 1        c[2], c[3]: row g + 8
//   a[0]: row g, columns 2t, 2t + 1    a[1]: row g + 8    a[2], a[3]: the same, columns 8 on
//   b[0]: rows 2t, 2t + 1, column g    b[1]: rows 8 on
template <bool kBFloat>
__device__ __forceinline__ void multiplyAdd(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]);

#if defined(__CUDACC__)

// m16n8k8 in fp16, which is what sm_75 has.
__device__ __forceinline__ void multiplyAddHalf(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a0), "r"(a1), "r"(b));
}

// sm_75 multiplies no bf16: as fp16, which keeps all of its digits between 2^-14 and 65504.
__device__ __forceinline__ uint32_t halvesFromBFloats(uint32_t pair) {
  return packHalves(__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u));
}

template <bool kBFloat>
__device__ __forceinline__ void multiplyAdd(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  if constexpr (kBFloat)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if constexpr (kBFloat)
      multiplyAddHalf(c, halvesFromBFloats(a[2 * half]), halvesFromBFloats(a[2 * half + 1]),
                      halvesFromBFloats(b[half]));
    else
      multiplyAddHalf(c, a[2 * half], a[2 * half + 1], b[half]);
  }
#endif
}

// Four 8 x 8 matrices of 16-bit numbers in shared memory, transposed: lane l gives the address of row l % 8 of matrix
// l / 8 (16 bytes, aligned) and gets of matrix i: out[i] = [2t][g], [2t + 1][g]      (ldmatrix.x4.trans)
__device__ __forceinline__ void loadTransposed(uint32_t (&out)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

// The same without transposing: out[i] = [g][2t], [g][2t + 1].
__device__ __forceinline__ void loadMatrices(uint32_t (&out)[4], const void* row) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

// Starts to copy 16 bytes (aligned) from global to shared memory; zeros when from is null. Below sm_80 it is done at
// once.
__device__ __forceinline__ void copyAsync(void* to, const void* from) {
#if __CUDA_ARCH__ >= 800
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  if (from != nullptr)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
  else
    *static_cast<uint4*>(to) = uint4{0, 0, 0, 0};
#else
  *static_cast<uint4*>(to) = from != nullptr ? *static_cast<const uint4*>(from) : uint4{0, 0, 0, 0};
#endif
}

// Copies since the last commit are one group.
__device__ __forceinline__ void copyAsyncCommit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits for the calling thread's groups, all but the newest kPending. Others' copies: __syncthreads() after it.
template <int kPending>
__device__ __forceinline__ void copyAsyncWait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

#else

struct Fragments {
  float a[4][2], b[2][2];
};

template <bool kBFloat, size_t kSize>
void widen(const uint32_t (&pairs)[kSize], float (&out)[kSize][2]) {
  for (size_t i = 0; i < kSize; ++i)
    for (size_t half = 0; half < 2; ++half) {
      const auto bits = static_cast<uint16_t>(pairs[i] >> 16 * half);
      out[i][half] = kBFloat ? bfloatToFloat(bits) : halfToFloat(bits);
    }
}

template <bool kBFloat>
void multiplyAdd(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  Fragments mine;
  widen<kBFloat>(a, mine.a);
  widen<kBFloat>(b, mine.b);
  const Fragments* const all = emulation::exchange(mine);
  const unsigned lane = threadIdx.x % kWarpSize, g = lane / 4, t = lane % 4;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned upper = i / 2, column = 2 * t + i % 2;
    double sum = c[i];
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned high = k / 8, holder = k % 8 / 2;
      sum +=
          static_cast<double>(all[4 * g + holder].a[2 * high + upper][k % 2]) * all[4 * column + holder].b[high][k % 2];
    }
    c[i] = static_cast<float>(sum);
  }
}

struct MatrixRow {
  uint16_t values[8];
};
// Each lane's row as it is when the lane arrives: nothing but a barrier makes other lanes' writes visible.
inline const MatrixRow* exchangeRows(const void* row) {
  MatrixRow mine;
  std::memcpy(&mine, row, sizeof(mine));
  return emulation::exchange(mine);
}

inline void loadTransposed(uint32_t (&out)[4], const void* row) {
  const MatrixRow* const rows = exchangeRows(row);
  const unsigned lane = threadIdx.x % kWarpSize, g = lane / 4, t = lane % 4;
  for (unsigned i = 0; i < 4; ++i)
    out[i] = rows[8 * i + 2 * t].values[g] | static_cast<uint32_t>(rows[8 * i + 2 * t + 1].values[g]) << 16;
}

inline void loadMatrices(uint32_t (&out)[4], const void* row) {
  const MatrixRow* const rows = exchangeRows(row);
  const unsigned lane = threadIdx.x % kWarpSize, g = lane / 4, t = lane % 4;
  for (unsigned i = 0; i < 4; ++i)
    out[i] = rows[8 * i + g].values[2 * t] | static_cast<uint32_t>(rows[8 * i + g].values[2 * t + 1]) << 16;
}

inline void copyAsync(void* to, const void* from) { emulation::copyAsync(to, from); }
inline void copyAsyncCommit() { emulation::copyAsyncCommit(); }
template <int kPending>
void copyAsyncWait() {
  emulation::copyAsyncWait(kPending);
}

#endif

}  // namespace flexplan::cuda
