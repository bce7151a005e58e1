#include "cpu/vec_generic.h"

#define FLEXPLAN_ISA generic
#include "cpu/kernels-inl.h"

namespace flexplan::cpu {
extern const Kernels kGenericKernels;
constinit const Kernels kGenericKernels = generic::makeKernels("generic");
}  // namespace flexplan::cpu
