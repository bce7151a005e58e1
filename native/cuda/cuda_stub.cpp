// A build without CUDA.
#include "core/error.h"
#include "cuda/cuda_api.h"
#include "model/device.h"

namespace flexplan {

std::unique_ptr<cuda::CudaApi> cuda::systemCudaApi() { return nullptr; }

std::unique_ptr<Device> makeCudaDevice(ThreadPool&, PerTier<std::unique_ptr<MemoryBudget>>&) {
  throw Error(ErrorCode::kNoDevice,
              "expected a CUDA device, got an engine built without CUDA; install nvcc 12 or newer and run `npm run "
              "build:native`, or use the cpu or emulated device");
}

}  // namespace flexplan
