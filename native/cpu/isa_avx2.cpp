#include "cpu/vec_avx2.h"

#define FLEXPLAN_ISA avx2
#include "cpu/kernels-inl.h"

namespace flexplan::cpu {
extern const Kernels kAvx2Kernels;
constinit const Kernels kAvx2Kernels = avx2::makeKernels("avx2");
}  // namespace flexplan::cpu
