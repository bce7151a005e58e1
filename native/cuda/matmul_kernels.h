// The kernels that matmul and matmulByExpert choose from. batch: see matmul.cuh; all ops have one dtype, rows and
// tokens are not 0.
#pragma once

#include "cuda/kernels.h"

namespace flexplan::cuda {

struct MatmulBatch;
struct ExpertBatch;

// kInt4, and 16-bit weights whose rows are whole multiples of 128 bytes and begin at multiples of 16.
void matmulFew(Stream stream, const MatmulBatch& batch);  // at most kFewTokens tokens
void matmulFew(Stream stream, const ExpertBatch& batch);  // best with so many for an expert
void matmulMany(Stream stream, const MatmulBatch& batch);
void matmulMany(Stream stream, const ExpertBatch& batch);
// All but kInt4.
void matmulSimple(Stream stream, const MatmulBatch& batch);
void matmulSimple(Stream stream, const ExpertBatch& batch);

}  // namespace flexplan::cuda
