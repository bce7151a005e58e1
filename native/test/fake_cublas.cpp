// A library with the five functions of cuBLAS that the engine uses, as cublas_api.h declares them: a slow product,
// queued on the stream. Handles are numbers; what is called without one fails as cuBLAS would.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

// Of the test that loads this library.
extern "C" void flexplanFakeQueue(void* stream, std::function<void()>* work);

namespace {

constexpr int kSuccess = 0, kNotInitialized = 1, kInvalidValue = 7;
constexpr int kReal16F = 2, kReal32F = 0, kReal16BF = 14;
constexpr size_t kAnyWorkspace = 1 << 20;

struct Handle {
  void* stream = nullptr;
  bool hasWorkspace = false;
};

float halfToFloat(uint16_t half) {
  _Float16 value;
  std::memcpy(&value, &half, sizeof(value));
  return static_cast<float>(value);
}

float valueAt(const void* matrix, int type, int64_t index) {
  if (type == kReal32F) return static_cast<const float*>(matrix)[index];
  const uint16_t bits = static_cast<const uint16_t*>(matrix)[index];
  if (type == kReal16F) return halfToFloat(bits);
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

}  // namespace

extern "C" {

int cublasCreate_v2(void** handle) {
  *handle = new Handle;
  return kSuccess;
}

int cublasDestroy_v2(void* handle) {
  delete static_cast<Handle*>(handle);
  return kSuccess;
}

int cublasSetStream_v2(void* handle, void* stream) {
  static_cast<Handle*>(handle)->stream = stream;
  return kSuccess;
}

int cublasSetWorkspace_v2(void* handle, void* workspace, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(workspace) % 256 != 0 || bytes < kAnyWorkspace) return kInvalidValue;
  static_cast<Handle*>(handle)->hasWorkspace = true;
  return kSuccess;
}

// C = alpha op(A) op(B) + beta C, column-major: C [m, n], op(A) [m, k], op(B) [k, n].
int cublasGemmEx(void* handle, int transA, int transB, int m, int n, int k, const void* alpha, const void* a, int aType,
                 int lda, const void* b, int bType, int ldb, const void* beta, void* c, int cType, int ldc,
                 int /*computeType*/, int /*algorithm*/) {
  const auto* const own = static_cast<Handle*>(handle);
  if (!own || !own->stream || !own->hasWorkspace) return kNotInitialized;
  if (lda < (transA ? k : m) || ldb < (transB ? n : k) || ldc < m || cType != kReal32F || aType != bType ||
      (aType != kReal32F && aType != kReal16F && aType != kReal16BF))
    return kInvalidValue;
  const float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  std::function<void()> work = [=] {
    auto* const out = static_cast<float*>(c);
    for (int64_t col = 0; col < n; ++col) {
      for (int64_t row = 0; row < m; ++row) {
        float sum = 0;
        for (int64_t i = 0; i < k; ++i)
          sum += valueAt(a, aType, transA ? row * lda + i : i * lda + row) *
                 valueAt(b, bType, transB ? i * ldb + col : col * ldb + i);
        float& to = out[col * ldc + row];
        to = scale * sum + (keep == 0 ? 0 : keep * to);
      }
    }
  };
  flexplanFakeQueue(own->stream, &work);
  return kSuccess;
}

}  // extern "C"
