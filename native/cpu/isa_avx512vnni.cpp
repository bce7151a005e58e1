#define FLEXPLAN_ISA avx512vnni
#include "cpu/vec_avx512.h"

#include "cpu/kernels-inl.h"

namespace flexplan::cpu {
extern const Kernels kAvx512VnniKernels;
constinit const Kernels kAvx512VnniKernels = avx512vnni::makeKernels("avx512-vnni");
}  // namespace flexplan::cpu
