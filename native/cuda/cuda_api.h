// The CUDA runtime as the device needs it: few calls behind a seam, so that everything above it also runs on a driver
// made of threads (native/test/fake_cuda.h). One GPU is used: the first that CUDA_VISIBLE_DEVICES leaves visible.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace flexplan::cuda {

using Stream = void*;  // cudaStream_t
using Event = void*;   // cudaEvent_t

struct DeviceInfo {
  std::string name;
  int64_t totalBytes;
  int computeCapability;  // 10 * major + minor
  int numProcessors;
};

// Older GPUs have no tensor cores for what the kernels do, and no code is built for them.
constexpr int kLeastComputeCapability = 75;

enum class Urgency { kBulk, kUrgent };
enum class CopyKind { kToDevice, kToHost, kOnDevice };

// Throws Error kEngine naming the call, its error and the place; what says so otherwise returns instead. Any thread may
// call. Work on one stream is done in order; streams are independent of each other.
class CudaApi {
 public:
  virtual ~CudaApi() = default;

  // None where there is no driver or no GPU.
  virtual std::vector<DeviceInfo> devices() = 0;
  // Free now on the GPU in use, other processes' memory not counted.
  virtual int64_t freeBytes() = 0;

  // Null when the GPU has no such block.
  virtual std::byte* allocate(int64_t bytes) = 0;
  virtual void free(std::byte* memory) noexcept = 0;
  // Locks whole pages of host memory in place, so that copies need no detour. False when the system refuses.
  virtual bool pin(std::byte* memory, int64_t bytes) = 0;
  virtual void unpin(std::byte* memory) noexcept = 0;

  virtual Stream createStream(Urgency urgency) = 0;
  virtual void destroyStream(Stream stream) noexcept = 0;
  // Waits for all that is queued, whatever has failed before.
  virtual void finish(Stream stream) noexcept = 0;
  virtual Event createEvent() = 0;
  virtual void destroyEvent(Event event) noexcept = 0;

  virtual void copy(void* to, const void* from, int64_t bytes, CopyKind kind, Stream stream) = 0;
  // The work so far on the stream becomes what the event stands for.
  virtual void record(Event event, Stream stream) = 0;
  virtual bool isDone(Event event) = 0;
  // Sleeps until it is done.
  virtual void await(Event event) = 0;
};

// The runtime that this build is linked with; null in a build without CUDA.
std::unique_ptr<CudaApi> systemCudaApi();

}  // namespace flexplan::cuda
