// The seam over the real thing.
#include <cuda_runtime_api.h>

#include "core/error.h"
#include "cuda/cuda_api.h"

namespace flexplan::cuda {
namespace {

// An error of a call that failed is also the "last error", which the next check of a launch would find: it is taken
// away.
void check(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  throw Error(ErrorCode::kEngine, std::string("expected ") + call + " to succeed, got " + cudaGetErrorName(status) +
                                      " (" + cudaGetErrorString(status) + ") at " + file + ":" + std::to_string(line) +
                                      "; run again with CUDA_LAUNCH_BLOCKING=1 to see which operation failed");
}
#define FLEXPLAN_CUDA(call) check((call), #call, __FILE__, __LINE__)

class CudaRuntime final : public CudaApi {
 public:
  std::vector<DeviceInfo> devices() override {
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess) {
      cudaGetLastError();
      return {};
    }
    std::vector<DeviceInfo> devices;
    for (int n = 0; n < count; ++n) {
      cudaDeviceProp properties;
      FLEXPLAN_CUDA(cudaGetDeviceProperties(&properties, n));
      devices.push_back({properties.name, static_cast<int64_t>(properties.totalGlobalMem),
                         10 * properties.major + properties.minor, properties.multiProcessorCount});
    }
    return devices;
  }

  int64_t freeBytes() override {
    size_t free = 0, total = 0;
    FLEXPLAN_CUDA(cudaMemGetInfo(&free, &total));
    return static_cast<int64_t>(free);
  }

  std::byte* allocate(int64_t bytes) override {
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, static_cast<size_t>(bytes));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    check(status, "cudaMalloc", __FILE__, __LINE__);
    return static_cast<std::byte*>(memory);
  }
  void free(std::byte* memory) noexcept override { cudaFree(memory); }

  bool pin(std::byte* memory, int64_t bytes) override {
    if (cudaHostRegister(memory, static_cast<size_t>(bytes), cudaHostRegisterPortable) == cudaSuccess) return true;
    cudaGetLastError();
    return false;
  }
  void unpin(std::byte* memory) noexcept override { cudaHostUnregister(memory); }

  Stream createStream(Urgency urgency) override {
    int leastUrgent = 0, mostUrgent = 0;
    FLEXPLAN_CUDA(cudaDeviceGetStreamPriorityRange(&leastUrgent, &mostUrgent));
    cudaStream_t stream = nullptr;
    FLEXPLAN_CUDA(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                               urgency == Urgency::kUrgent ? mostUrgent : leastUrgent));
    return stream;
  }
  void destroyStream(Stream stream) noexcept override { cudaStreamDestroy(static_cast<cudaStream_t>(stream)); }
  void finish(Stream stream) noexcept override { cudaStreamSynchronize(static_cast<cudaStream_t>(stream)); }

  Event createEvent() override {
    cudaEvent_t event = nullptr;
    FLEXPLAN_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync));
    return event;
  }
  void destroyEvent(Event event) noexcept override { cudaEventDestroy(static_cast<cudaEvent_t>(event)); }

  void copy(void* to, const void* from, int64_t bytes, CopyKind kind, Stream stream) override {
    constexpr cudaMemcpyKind kKinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice};
    FLEXPLAN_CUDA(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), kKinds[static_cast<int>(kind)],
                                  static_cast<cudaStream_t>(stream)));
  }
  void record(Event event, Stream stream) override {
    FLEXPLAN_CUDA(cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream)));
  }
  bool isDone(Event event) override {
    const cudaError_t status = cudaEventQuery(static_cast<cudaEvent_t>(event));
    if (status == cudaErrorNotReady) {
      cudaGetLastError();
      return false;
    }
    check(status, "cudaEventQuery", __FILE__, __LINE__);
    return true;
  }
  void await(Event event) override { FLEXPLAN_CUDA(cudaEventSynchronize(static_cast<cudaEvent_t>(event))); }
};

}  // namespace

std::unique_ptr<CudaApi> systemCudaApi() { return std::make_unique<CudaRuntime>(); }

}  // namespace flexplan::cuda
