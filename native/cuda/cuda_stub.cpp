// A build without CUDA.
#include "cuda/cuda_api.h"

namespace flexplan::cuda {

std::unique_ptr<CudaApi> systemCudaApi() { return nullptr; }

}  // namespace flexplan::cuda
