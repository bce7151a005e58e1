// Host memory that the GPU copies by itself.
#pragma once

#include "core/thread_pool.h"
#include "cuda/cuda_api.h"
#include "tier/memory_budget.h"

namespace flexplan::cuda {

// Pins until the system refuses once: what comes after stays pageable, which works at a fraction of the link's rate.
class CudaPinner final : public HostPinner {
 public:
  CudaPinner(CudaApi& api, ThreadPool& pool) : api_(api), pool_(pool) {}
  std::shared_ptr<void> pin(std::byte* pages, int64_t bytes) override;

  int64_t pageableBytes() const { return pageableBytes_; }

 private:
  void touch(std::byte* pages, int64_t bytes);

  CudaApi& api_;
  ThreadPool& pool_;
  int64_t pageableBytes_ = 0;
};

}  // namespace flexplan::cuda
