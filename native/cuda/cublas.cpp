#include "cuda/cublas.h"

#include <dlfcn.h>

#include <array>
#include <cstdlib>
#include <limits>
#include <span>
#include <type_traits>

#include "core/error.h"

namespace flexplan::cuda {
namespace {

// From cublas_api.h and library_types.h, which are no part of the CUDA compiler's own package.
constexpr int kSuccess = 0;
constexpr int kOpNone = 0, kOpTranspose = 1;
constexpr int kReal32F = 0, kReal16F = 2, kReal16BF = 14;
constexpr int kCompute32F = 68;
constexpr int kDefaultAlgorithm = -1;

int typeOf(DataType dtype) {
  return dtype == DataType::kFloat16 ? kReal16F : dtype == DataType::kBFloat16 ? kReal16BF : kReal32F;
}

void check(int status, const char* call) {
  if (status == kSuccess) return;
  throw Error(ErrorCode::kEngine, std::string("expected ") + call + " to succeed, got cuBLAS status " +
                                      std::to_string(status) + "; set FLEXPLAN_CUBLAS=0 to do without cuBLAS");
}

int asInt(int64_t size) {
  if (size <= std::numeric_limits<int>::max()) return static_cast<int>(size);
  throw Error(ErrorCode::kUnsupported, "expected matrices of less than 2^31 rows and columns, got " +
                                           std::to_string(size) + "; use smaller GPU batches");
}

}  // namespace

// The signatures of cublas_api.h with its enums as the ints that they are.
struct Cublas::Functions {
  int (*create)(void** handle);
  int (*destroy)(void* handle);
  int (*setStream)(void* handle, Stream stream);
  int (*setWorkspace)(void* handle, void* workspace, size_t bytes);
  int (*gemmEx)(void* handle, int transA, int transB, int m, int n, int k, const void* alpha, const void* a, int aType,
                int lda, const void* b, int bType, int ldb, const void* beta, void* c, int cType, int ldc,
                int computeType, int algorithm);

  // Null when one is missing. The library stays loaded: unloading it would end contexts that others may use.
  static std::unique_ptr<Functions> from(void* library) {
    auto functions = std::make_unique<Functions>();
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
      return function != nullptr;
    };
    const bool complete = find(functions->create, "cublasCreate_v2") && find(functions->destroy, "cublasDestroy_v2") &&
                          find(functions->setStream, "cublasSetStream_v2") &&
                          find(functions->setWorkspace, "cublasSetWorkspace_v2") &&
                          find(functions->gemmEx, "cublasGemmEx");
    return complete ? std::move(functions) : nullptr;
  }
};

std::unique_ptr<Cublas> Cublas::load(Stream stream, std::byte* workspace) {
  const char* const wanted = std::getenv("FLEXPLAN_CUBLAS");
  const std::string named = wanted ? wanted : "";
  if (named == "0") return nullptr;
  constexpr std::array kPlaces = {"libcublas.so.13", "libcublas.so.12", "/usr/local/cuda/lib64/libcublas.so",
                                  "/opt/cuda/lib64/libcublas.so"};
  const std::span<const char* const> places = named.empty() ? std::span(kPlaces) : std::span(&wanted, 1);
  for (const char* const place : places) {
    void* const library = dlopen(place, RTLD_NOW | RTLD_LOCAL);
    if (!library) continue;
    if (auto functions = Functions::from(library))
      return std::unique_ptr<Cublas>(new Cublas(std::move(functions), place, stream, workspace));
  }
  if (named.empty()) return nullptr;
  throw Error(ErrorCode::kBadInput, "expected cuBLAS 12 or 13 in the file that FLEXPLAN_CUBLAS names, got " + named +
                                        "; correct the path, or set it to 0 to do without");
}

Cublas::Cublas(std::unique_ptr<Functions> functions, std::string path, Stream stream, std::byte* workspace)
    : functions_(std::move(functions)), path_(std::move(path)) {
  check(functions_->create(&handle_), "cublasCreate");
  check(functions_->setStream(handle_, stream), "cublasSetStream");
  check(functions_->setWorkspace(handle_, workspace, kWorkspaceBytes), "cublasSetWorkspace");
}

Cublas::~Cublas() {
  if (handle_) functions_->destroy(handle_);
}

// Row-major [tokens, rows] is column-major [rows, tokens]: out^T = weight x^T, where weight is stored as its transpose.
void Cublas::multiply(const Product& product, bool accumulate) {
  const float alpha = 1, beta = accumulate ? 1 : 0;
  const int type = typeOf(product.dtype);
  check(functions_->gemmEx(handle_, kOpTranspose, kOpNone, asInt(product.rows), asInt(product.tokens),
                           asInt(product.cols), &alpha, product.weight, type, asInt(product.cols), product.x, type,
                           asInt(product.xStride), &beta, product.out, kReal32F, asInt(product.outStride), kCompute32F,
                           kDefaultAlgorithm),
        "cublasGemmEx");
}

}  // namespace flexplan::cuda
