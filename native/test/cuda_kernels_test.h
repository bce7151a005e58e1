// What the files of the CUDA kernel test share.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cuda/kernels.h"
#include "test/check.h"
#include "test/cuda_emulation/device_array.h"
#include "test/encoded_rows.h"
#if defined(FLEXPLAN_CUDA_EMULATION)
#include "test/cuda_emulation/emulation.h"
#endif

namespace flexplan::test {

// Runs body once on a GPU; under emulation with the threads of a block taking turns from the last to the first, and
// shuffled.
inline void forEachOrder(const std::function<void()>& body) {
#if defined(FLEXPLAN_CUDA_EMULATION)
  using cuda::emulation::Order;
  for (const Order order : {Order::kBackward, Order::kShuffled}) {
    cuda::emulation::setOrder(order, 1);
    body();
  }
  cuda::emulation::setOrder(Order::kForward);
#else
  body();
#endif
}

// What body returns; a failed check when it differs in bits between orders of threads.
inline std::vector<float> inEveryOrder(Checks& checks, const std::string& name,
                                       const std::function<std::vector<float>()>& body) {
  std::vector<float> first;
  int runs = 0;
  forEachOrder([&] {
    const std::vector<float> result = body();
    if (runs++ == 0) first = result;
    checks.that(sameBits(first, result), name + " in order " + std::to_string(runs));
  });
  return first;
}

void testMatmul(Checks& checks);
void testExperts(Checks& checks);
void testAttention(Checks& checks);
void testSampling(Checks& checks);

}  // namespace flexplan::test
