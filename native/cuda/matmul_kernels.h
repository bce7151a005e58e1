// The kernels that matmul chooses from. batch: see matmul.cuh; all ops have one dtype, rows and tokens are not 0.
#pragma once

#include "cuda/kernels.h"

namespace flexplan::cuda {

struct MatmulBatch;

// kInt4, and 16-bit weights whose rows are whole multiples of 128 bytes and begin at multiples of 16.
void matmulFew(Stream stream, const MatmulBatch& batch);  // at most kFewTokens tokens
void matmulMany(Stream stream, const MatmulBatch& batch);
// All but kInt4.
void matmulSimple(Stream stream, const MatmulBatch& batch);

}  // namespace flexplan::cuda
