// What computes: its memory, its links and the operations that the layers of a model need. The engine knows no other
// device.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cpu/experts.h"
#include "cpu/ops.h"
#include "cpu/sampling.h"
#include "model/model_shape.h"
#include "tier/link_channel.h"
#include "tier/memory_budget.h"

namespace flexplan {

enum class DeviceKind : uint8_t { kCuda, kCpu, kEmulated };

// The largest launches to come.
struct LaunchLimits {
  int64_t tokens;     // of one launch
  int64_t sequences;  // whose logits are seen at once
  int64_t sparsePositions = 0;  // of a sequence whose attention is sparse; 0: none is
};

using cpu::KvRows;
using cpu::KvRun;

// Operations work on device memory, in the caller's order; one thread at a time calls them. They may return before they
// are done (what they take from host memory they have taken): whoever uses their results outside the device, or gives
// their operands' memory to a link copy, awaits a mark. Shapes and meanings are those of cpu/ops.h. Allocation, marks
// to await and link copies may come from any thread.
class Device {
 public:
  virtual ~Device() = default;

  // The tier of its memory: gpu, or cpu when the CPU itself is the device (then nothing crosses a link to it).
  virtual Tier tier() const = 0;
  bool hasGpuTier() const { return tier() == Tier::kGpu; }
  virtual TierBuffer allocate(int64_t bytes, const std::string& what, size_t alignment = kCacheLineBytes) = 0;
  virtual LinkChannel& cpuToGpu() = 0;
  virtual LinkChannel& gpuToCpu() = 0;
  // Takes what operations need beside their operands (docs/schedule.md, "Buffers"), for as long as the handle lives.
  // Null where they need nothing.
  virtual std::shared_ptr<void> reserve(const ModelShape& /*shape*/, const LaunchLimits& /*limits*/) { return nullptr; }

  // The operations so far, as a number to await; for a device whose operations are done when they return there is
  // nothing to await.
  virtual int64_t mark() { return 0; }
  virtual void await(int64_t /*mark*/) {}
  // Waits for all operations, those of a run that failed too: their memory may be freed then.
  virtual void finish() noexcept {}

  // Copies inside device memory, none of what another of them writes.
  virtual void copy(std::span<const CopyPiece> pieces) = 0;
  // `count` floats of device memory as the host sees them, when the operations so far are done; `scratch` holds them
  // where they had to be copied.
  virtual std::span<const float> view(const float* data, int64_t count, std::vector<float>& scratch) = 0;
  // The next token of each row of logits [choices.size(), vocabSize], when the operations so far are done.
  virtual std::vector<int32_t> chooseTokens(const float* logits, std::span<const cpu::TokenChoice> choices,
                                            int64_t vocabSize) = 0;

  virtual void matmul(std::span<const cpu::Matmul> ops, int64_t tokens) = 0;
  virtual void toFloat(DataType from, const std::byte* rows, int64_t numRows, int64_t cols, float* out) = 0;
  virtual void fromFloat(DataType to, const float* rows, int64_t numRows, int64_t cols, std::byte* out) = 0;
  // bias == null: RMS norm.
  virtual void norm(const float* x, const float* weight, const float* bias, float epsilon, int64_t tokens, int64_t size,
                    float* y) = 0;
  virtual void add(const float* x, int64_t count, float* y) = 0;
  virtual void activate(cpu::Activation f, const float* gate, int64_t count, float* x) = 0;
  // positions, inverseFrequencies: host memory
  virtual void rope(std::span<const int32_t> positions, const float* inverseFrequencies, int64_t numHeads,
                    int64_t headDim, int64_t xStride, float* x) = 0;
  virtual void attention(const cpu::AttentionShape& shape, std::span<const cpu::AttentionSequence> sequences) = 0;
  virtual void storeKvRows(const KvRows& from, std::span<const KvRun> runs) = 0;

  // Mixtures of experts (cpu/experts.h). The tables are device memory: nothing has to come back to the host.
  virtual void route(const float* scores, int64_t tokens, const cpu::Routing& routing, const cpu::ExpertRows& out) = 0;
  // out[n] = x[rows[n]]      rows: device memory; out: [count, size]
  virtual void gatherRows(const float* x, const int32_t* rows, int64_t count, int64_t size, float* out) = 0;
  // Multiplies numRows expert rows: expert e those before ends[e] (device memory) and not before ends[e - 1]. ops: so
  // many of expert 0, as many of expert 1, ..., alike in shape and, those of all experts together, in x and out, which
  // are of row 0.
  virtual void matmulByExpert(std::span<const cpu::Matmul> ops, const int32_t* ends, int64_t numExperts,
                              int64_t numRows) = 0;
  // y[t] += sum_n weights[t, n] * x[rows[t, n]], in order of n      x: expert rows of `size`
  virtual void addExpertRows(const float* x, const cpu::ExpertRows& rows, int64_t tokens, int64_t numActive,
                             int64_t size, float* y) = 0;
};

// The CPU as device, or (kEmulated) a GPU made of it: memory charged to the gpu budget, links paced. Rates in bytes per
// second. Throws what makeCudaDevice throws for kCuda.
std::unique_ptr<Device> makeDevice(DeviceKind kind, ThreadPool& pool, PerTier<std::unique_ptr<MemoryBudget>>& budgets,
                                   double cpuToGpuRate, double gpuToCpuRate);

// The first GPU that is visible (native/cuda). Throws Error kNoDevice, also in a build without CUDA, and kOutOfMemory.
std::unique_ptr<Device> makeCudaDevice(ThreadPool& pool, PerTier<std::unique_ptr<MemoryBudget>>& budgets);

}  // namespace flexplan
