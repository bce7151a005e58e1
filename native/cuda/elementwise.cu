// Functions of one element, rotations of pairs, copies.
#include "cuda/launch.cuh"

namespace flexplan::cuda {
namespace {

using cpu::Activation;

constexpr int kThreads = 256;
constexpr int kVector = 4;

// Calls body(i, n) for runs of n = kVector elements, or of fewer at the end and where the arrays are not aligned.
template <typename Body>
__device__ __forceinline__ void forEachRun(int64_t count, bool aligned, Body&& body) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t begin = thread * kVector;
  if (aligned && begin + kVector <= count) return body(begin, true);
  for (int64_t i = begin; i < begin + kVector && i < count; ++i) body(i, false);
}

int64_t blocksFor(int64_t count) { return ceilDivide(count, kThreads * kVector); }

bool alignedToVector(const void* a, const void* b) {
  return (reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b)) % 16 == 0;
}

__global__ void addKernel(const float* x, int64_t count, float* y, bool aligned) {
  forEachRun(count, aligned, [&](int64_t i, bool vector) {
    if (!vector) {
      y[i] += x[i];
      return;
    }
    const float4 a = *reinterpret_cast<const float4*>(x + i), b = *reinterpret_cast<const float4*>(y + i);
    *reinterpret_cast<float4*>(y + i) = float4{a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w};
  });
}

// gelu: x Phi(x), the tail by erfc so that large negative x keep their digits.
// tanh form: x (1 + tanh(u)) / 2 = x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3)
template <Activation kFunction>
__device__ __forceinline__ float apply(float x) {
  if constexpr (kFunction == Activation::kRelu) return x < 0 ? 0.0f : x;
  if constexpr (kFunction == Activation::kGelu) return 0.5f * x * erfcf(-0.707106781f * x);
  if constexpr (kFunction == Activation::kGeluTanh)
    return x / (1.0f + expf(-1.59576912f * fmaf(x * x * x, 0.044715f, x)));
  if constexpr (kFunction == Activation::kSilu) return x / (1.0f + expf(-x));
}

template <Activation kFunction>
__global__ void activateKernel(const float* gate, int64_t count, float* x, bool aligned) {
  forEachRun(count, aligned, [&](int64_t i, bool vector) {
    if (!vector) {
      x[i] = gate != nullptr ? apply<kFunction>(gate[i]) * x[i] : apply<kFunction>(x[i]);
      return;
    }
    const float4 value = *reinterpret_cast<const float4*>(x + i);
    const float4 in = gate != nullptr ? *reinterpret_cast<const float4*>(gate + i) : value;
    float4 out{apply<kFunction>(in.x), apply<kFunction>(in.y), apply<kFunction>(in.z), apply<kFunction>(in.w)};
    if (gate != nullptr) out = float4{out.x * value.x, out.y * value.y, out.z * value.z, out.w * value.w};
    *reinterpret_cast<float4*>(x + i) = out;
  });
}

// (a, b) -> (a cos - b sin, b cos + a sin), a and b half a head apart. One thread: one pair in kRopeHeads heads.
constexpr int64_t kRopeHeads = 4;
__global__ void ropeKernel(const int32_t* positions, const float* inverseFrequencies, int64_t tokens, int64_t numHeads,
                           int64_t headDim, int64_t xStride, float* x) {
  const int64_t half = headDim / 2, i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= tokens * half) return;
  const int64_t token = i / half, d = i % half;
  const float angle = static_cast<float>(positions[token]) * inverseFrequencies[d];
  const float cosine = cosf(angle), sine = sinf(angle);
  const int64_t firstHead = blockIdx.y * kRopeHeads;
  for (int64_t head = firstHead; head < firstHead + kRopeHeads && head < numHeads; ++head) {
    float* const pair = x + token * xStride + head * headDim + d;
    const float a = pair[0], b = pair[half];
    pair[0] = a * cosine - b * sine;
    pair[half] = b * cosine + a * sine;
  }
}

// blockIdx.y: the span; blockIdx.x: kCopyBytes of it.
constexpr int64_t kCopyBytes = 16384;
__global__ void copyKernel(const CopySpan* spans) {
  const CopySpan span = spans[blockIdx.y];
  const int64_t begin = blockIdx.x * kCopyBytes;
  const int64_t end = begin + kCopyBytes < span.bytes ? begin + kCopyBytes : span.bytes;
  int64_t bytewise = begin;
  if ((reinterpret_cast<uintptr_t>(span.to) | reinterpret_cast<uintptr_t>(span.from)) % 16 == 0) {
    for (int64_t i = begin + threadIdx.x * 16; i + 16 <= end; i += kThreads * 16)
      *reinterpret_cast<uint4*>(span.to + i) = *reinterpret_cast<const uint4*>(span.from + i);
    if (end > begin) bytewise = end - (end - begin) % 16;
  }
  for (int64_t i = bytewise + threadIdx.x; i < end; i += kThreads) span.to[i] = span.from[i];
}

}  // namespace

void add(Stream stream, const float* x, int64_t count, float* y) {
  launch(addKernel, {stream, blocksFor(count), 1, 1, kThreads, 0}, x, count, y, alignedToVector(x, y));
}

void activate(Stream stream, Activation f, const float* gate, int64_t count, float* x) {
  const bool aligned = alignedToVector(gate, x);
  const Launch shape{stream, blocksFor(count), 1, 1, kThreads, 0};
  switch (f) {
    case Activation::kRelu: return launch(activateKernel<Activation::kRelu>, shape, gate, count, x, aligned);
    case Activation::kGelu: return launch(activateKernel<Activation::kGelu>, shape, gate, count, x, aligned);
    case Activation::kGeluTanh: return launch(activateKernel<Activation::kGeluTanh>, shape, gate, count, x, aligned);
    case Activation::kSilu: return launch(activateKernel<Activation::kSilu>, shape, gate, count, x, aligned);
  }
}

void rope(Stream stream, const int32_t* positions, const float* inverseFrequencies, int64_t tokens, int64_t numHeads,
          int64_t headDim, int64_t xStride, float* x) {
  launch(ropeKernel,
         {stream, ceilDivide(tokens * (headDim / 2), kThreads), ceilDivide(numHeads, kRopeHeads), 1, kThreads, 0},
         positions, inverseFrequencies, tokens, numHeads, headDim, xStride, x);
}

void copySpans(Stream stream, const CopySpan* spans, int64_t count, int64_t mostBytes) {
  constexpr int64_t kMostSpans = 65535;
  for (int64_t n = 0; n < count; n += kMostSpans)
    launch(copyKernel,
           {stream, ceilDivide(mostBytes, kCopyBytes), count - n < kMostSpans ? count - n : kMostSpans, 1, kThreads, 0},
           spans + n);
}

}  // namespace flexplan::cuda
