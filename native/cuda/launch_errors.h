// Why a kernel cannot be launched. Apart from launch.cuh so that nvcc, which reads a file once per target, need not
// read <string>.
#pragma once

#include <cstdint>

namespace flexplan::cuda {

// Error kUnsupported.
[[noreturn]] void refuseGrid(int64_t blocksX, int64_t blocksY, int64_t blocksZ);
[[noreturn]] void refuseHeadDim(int64_t headDim);
// Error kEngine. name, description: CUDA's own words.
[[noreturn]] void failLaunch(const char* name, const char* description);

}  // namespace flexplan::cuda
