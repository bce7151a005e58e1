#include "cuda/launch_errors.h"

#include <string>

#include "core/error.h"
#include "cuda/kernels.h"

namespace flexplan::cuda {

void refuseGrid(int64_t blocksX, int64_t blocksY, int64_t blocksZ) {
  throw Error(ErrorCode::kUnsupported, "expected a grid of at most 2147483647 x 65535 x 65535 blocks, got " +
                                           std::to_string(blocksX) + " x " + std::to_string(blocksY) + " x " +
                                           std::to_string(blocksZ) + "; use smaller batches");
}

void refuseHeadDim(int64_t headDim) {
  throw Error(ErrorCode::kUnsupported, "expected heads of at most " + std::to_string(kMostHeadDim) +
                                           " dimensions on a GPU, got " + std::to_string(headDim) +
                                           "; use the cpu device");
}

void failLaunch(const char* name, const char* description) {
  throw Error(ErrorCode::kEngine, std::string("expected a kernel launch to succeed, got ") + name + ": " + description +
                                      "; see whether the GPU is still usable");
}

}  // namespace flexplan::cuda
