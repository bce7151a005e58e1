#define FLEXPLAN_ISA avx512bf16
#define FLEXPLAN_PAIRS
#include "cpu/vec_avx512.h"
#include "cpu/vec_avx512_pairs.h"

#include "cpu/kernels-inl.h"

namespace flexplan::cpu {
extern const Kernels kAvx512Bf16Kernels;
constinit const Kernels kAvx512Bf16Kernels = avx512bf16::makeKernels("avx512-bf16");
}  // namespace flexplan::cpu
