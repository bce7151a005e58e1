// Which kernel sets this machine can run, and which one is in use.
#include <atomic>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/error.h"
#include "cpu/kernels.h"

namespace flexplan::cpu {

extern const Kernels kGenericKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512SoftBf16Kernels;
extern const Kernels kAvx512Kernels;
extern const Kernels kAvx512VnniKernels;
extern const Kernels kAvx512Bf16Kernels;
#endif

namespace {

std::vector<const Kernels*> detect() {
  std::vector<const Kernels*> sets{&kGenericKernels};
#if defined(__x86_64__)
  // The compiler's checks include that the operating system saves the registers.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
    sets.push_back(&kAvx2Kernels);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    sets.push_back(&kAvx512SoftBf16Kernels);
    sets.push_back(&kAvx512Kernels);
    if (__builtin_cpu_supports("avx512vnni")) {
      sets.push_back(&kAvx512VnniKernels);
      // No CPU multiplies bf16 without it.
      if (__builtin_cpu_supports("avx512bf16")) sets.push_back(&kAvx512Bf16Kernels);
    }
  }
#endif
  return sets;
}

const std::vector<const Kernels*>& available() {
  static const std::vector<const Kernels*> sets = detect();
  return sets;
}

const Kernels* choose() {
  const char* wanted = std::getenv("FLEXPLAN_ISA");
  if (wanted == nullptr || *wanted == '\0') return available().back();
  std::string names;
  for (const Kernels* set : available()) {
    if (std::string(set->name) == wanted) return set;
    names += names.empty() ? set->name : std::string(", ") + set->name;
  }
  throw Error(ErrorCode::kBadInput, "expected FLEXPLAN_ISA to be one of " + names +
                                        " (all that this machine can run), got \"" + wanted +
                                        "\"; correct it or unset it");
}

std::atomic<const Kernels*>& current() {
  static std::atomic<const Kernels*> set{choose()};
  return set;
}

}  // namespace

std::span<const Kernels* const> availableKernels() { return available(); }
const Kernels& kernels() { return *current().load(std::memory_order_relaxed); }
void useKernels(const Kernels& kernels) { current().store(&kernels); }

const char* isaName() { return kernels().name; }

std::span<const char* const> availableIsas() {
  static const std::vector<const char*> names = [] {
    std::vector<const char*> all;
    for (const Kernels* set : available()) all.push_back(set->name);
    return all;
  }();
  return names;
}

}  // namespace flexplan::cpu
