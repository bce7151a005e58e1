// What the files of the CPU kernels' test share. Tolerances are bounds: u = 2^-24 is the rounding of one operation; a
// sum's error is at most its depth times u times the sum of magnitudes.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "core/thread_pool.h"
#include "cpu/kernels.h"
#include "cpu/ops.h"
#include "test/check.h"
#include "test/encoded_rows.h"

namespace flexplan::test {

// Roundings that a product can go through: its own (where it is not fused), its chain (of at least 4 in a block; in
// pairs a unit counts twice, but there are 16 chains), the tree of chains, then the sum of blocks, then the bias.
inline double sumDepth(int64_t n) {
  const auto columns = static_cast<double>(n);
  return std::min(columns, cpu::kBlockUnits / 4.0) + 4 + columns / cpu::kBlockUnits + 2;
}

// Of the kernel set in use.
void testInt8Kernels(Checks& checks, ThreadPool& pool);
void testAttentionKernels(Checks& checks, ThreadPool& pool);
void testSparseAttentionKernels(Checks& checks, ThreadPool& pool);

}  // namespace flexplan::test
