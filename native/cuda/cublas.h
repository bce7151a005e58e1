// cuBLAS, if the machine has it: loaded when the device is made, so that neither build nor package needs it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "core/data_type.h"
#include "cuda/cuda_api.h"

namespace flexplan::cuda {

class Cublas {
 public:
  // What NVIDIA recommends for Hopper; older GPUs are content with less.
  static constexpr int64_t kWorkspaceBytes = int64_t{32} << 20;

  // Looks for libcublas where the loader does, then in the CUDA toolkit. FLEXPLAN_CUBLAS names a file, or 0: none. Null
  // where there is none; throws Error kBadInput when the file that was named cannot be used. workspace: device memory.
  static std::unique_ptr<Cublas> load(Stream stream, std::byte* workspace);
  ~Cublas();

  struct Product {
    DataType dtype;  // of weight and x: kFloat32, kFloat16, kBFloat16
    const void* weight;
    const void* x;
    float* out;
    int64_t rows, cols, tokens, xStride, outStride;
  };
  // out[t, r] = sum_c x[t, c] * weight[r, c], or += when `accumulate`; added in fp32.
  void multiply(const Product& product, bool accumulate);

  const std::string& path() const { return path_; }

 private:
  struct Functions;
  Cublas(std::unique_ptr<Functions> functions, std::string path, Stream stream, std::byte* workspace);

  const std::unique_ptr<Functions> functions_;
  const std::string path_;
  void* handle_ = nullptr;
};

}  // namespace flexplan::cuda
