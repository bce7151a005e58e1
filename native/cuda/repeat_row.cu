// A row written again and again: the bias under products that are added to it.
#include "cuda/launch.cuh"

namespace flexplan::cuda {
namespace {

constexpr int kThreads = 256;
// Copies that one thread makes of its column.
constexpr int64_t kCopies = 8;

__global__ void repeatRowKernel(const float* row, int64_t size, int64_t count, int64_t outStride, float* out) {
  const int64_t col = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (col >= size) return;
  const float value = row[col];
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kCopies;
  for (int64_t t = first; t < first + kCopies && t < count; ++t) out[t * outStride + col] = value;
}

}  // namespace

void repeatRow(Stream stream, const float* row, int64_t size, int64_t count, int64_t outStride, float* out) {
  launch(repeatRowKernel, {stream, ceilDivide(count, kCopies), ceilDivide(size, kThreads), 1, kThreads, 0}, row, size,
         count, outStride, out);
}

}  // namespace flexplan::cuda
