// Measures the CPU's kernels as the engine calls them. Operands rotate through more memory than the last-level cache
// holds, so that no repetition finds its weights or KV cached. Monotonic clock; warm-up before the first sample; the
// caller takes median and spread.
#pragma once

#include <cstdint>
#include <vector>

#include "core/data_type.h"

namespace flexplan::bench {

struct Samples {
  std::vector<double> seconds;  // one per repetition
  double work;                  // of one repetition: bytes, FLOPs or launches
};

enum class Phase { kPrefill, kDecode };

// numThreads: as for ThreadPool. All throw Error kBadInput for sizes below 1 and kOutOfMemory when the operands do not
// fit.

// All threads read `bytes` of memory with the widest loads. work: bytes.
Samples measureMemoryRead(int64_t bytes, int repetitions, int numThreads);

struct MatmulSetting {
  int64_t tokens, rows, cols;
  DataType weightType;
};
// One launch with a weight matrix [rows, cols]. work: FLOPs.
Samples measureMatmul(const MatmulSetting& setting, int repetitions, int numThreads);

struct AttentionSetting {
  Phase phase;
  int64_t sequences;
  int64_t tokens;  // prefill: of each prompt; decode: KV rows of each sequence, the new one included
  int64_t numHeads, numKvHeads, headDim;
  DataType kvType;
};
// Prefill: work = FLOPs of the (query, key) pairs that causality allows. Decode: work = KV bytes.
Samples measureAttention(const AttentionSetting& setting, int repetitions, int numThreads);

// What parallel loops cost beyond their work: many in a row, or (pauseSeconds > 0) one after the caller has slept so
// long, as when a task has waited for its inputs and the pool's threads have parked. work: launches.
Samples measureLaunch(double pauseSeconds, int repetitions, int numThreads);

}  // namespace flexplan::bench
