// Stands in for avx512-bf16 where tests run without that instruction: the same source, its dot product in two
// multiply-adds.
#define FLEXPLAN_ISA avx512softbf16
#define FLEXPLAN_PAIRS
#include "cpu/vec_avx512.h"
#include "cpu/vec_avx512_pairs.h"

#include "cpu/kernels-inl.h"

namespace flexplan::cpu {
extern const Kernels kAvx512SoftBf16Kernels;
constinit const Kernels kAvx512SoftBf16Kernels = avx512softbf16::makeKernels("avx512-softbf16");
}  // namespace flexplan::cpu
