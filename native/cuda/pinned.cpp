#include "cuda/pinned.h"

namespace flexplan::cuda {

std::shared_ptr<void> CudaPinner::pin(std::byte* pages, int64_t bytes) {
  touch(pages, bytes);
  if (pageableBytes_ == 0 && api_.pin(pages, bytes))
    return {pages, [&api = api_](void* pinned) { api.unpin(static_cast<std::byte*>(pinned)); }};
  pageableBytes_ += bytes;
  return nullptr;
}

// The driver would have every page made on one thread: a minute for a hundred gigabytes.
void CudaPinner::touch(std::byte* pages, int64_t bytes) {
  constexpr int64_t kPage = static_cast<int64_t>(kPageBytes);
  constexpr int64_t kPagesPerTask = 4096;
  pool_.parallelFor(bytes / kPage, kPagesPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t page = begin; page < end; ++page) pages[page * kPage] = std::byte{0};
  });
}

}  // namespace flexplan::cuda
