// What is measured with: numbers like those of real models, in every storage type.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/aligned_buffer.h"
#include "core/data_type.h"
#include "core/thread_pool.h"

namespace flexplan::bench {

inline size_t size(int64_t value) { return static_cast<size_t>(value); }

// Throws Error kBadInput naming the value.
void expectPositive(const char* name, int64_t value);

AlignedBuffer randomFloats(int64_t count);

// `copies` of `rows` x `cols` values as stored, one after the other, touched first by the threads that may read them.
AlignedBuffer storedCopies(ThreadPool& pool, DataType type, int64_t rows, int64_t cols, int64_t copies);

}  // namespace flexplan::bench
