#define FLEXPLAN_ISA avx512
#include "cpu/vec_avx512.h"

#include "cpu/kernels-inl.h"

namespace flexplan::cpu {
extern const Kernels kAvx512Kernels;
constinit const Kernels kAvx512Kernels = avx512::makeKernels("avx512");
}  // namespace flexplan::cpu
