#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "core/parts.h"
#include "model/device.h"

namespace flexplan {
namespace {

constexpr double kUnpaced = std::numeric_limits<double>::infinity();
constexpr int64_t kRowsPerTask = 4;
constexpr int64_t kBytesPerTask = int64_t{256} << 10;

// Runs every operation on the CPU; its memory is host memory, whichever budget pays for it.
class HostDevice final : public Device {
 public:
  HostDevice(ThreadPool& pool, MemoryBudget& budget, double cpuToGpuRate, double gpuToCpuRate)
      : pool_(pool), budget_(budget), cpuToGpu_(cpuToGpuRate), gpuToCpu_(gpuToCpuRate) {}

  Tier tier() const override { return budget_.tier(); }
  TierBuffer allocate(int64_t bytes, const std::string& what, size_t alignment) override {
    return TierBuffer::onHost(budget_, bytes, what, alignment);
  }
  LinkChannel& cpuToGpu() override { return cpuToGpu_; }
  LinkChannel& gpuToCpu() override { return gpuToCpu_; }
  // The kernels keep this memory themselves.
  std::shared_ptr<void> reserve(const ModelShape& shape, const LaunchLimits& limits) override {
    auto charges = std::make_shared<std::array<MemoryBudget::Charge, 2>>();
    (*charges)[0] = budget_.take(cpu::matmulScratchBytes(limits.tokens, shape.widestInput()), "matmul inputs");
    (*charges)[1] = budget_.take(cpu::sparseScoreBytes(shape.numHeads, shape.numKvHeads, limits.sparsePositions),
                                 "scores of sparse attention");
    return charges;
  }

  void copy(std::span<const CopyPiece> pieces) override {
    pool_.parallelFor(totalBytes(pieces), kBytesPerTask, [&](int64_t begin, int64_t end) {
      forEachPart(pieces, begin, end, [](const CopyPiece& piece) { return piece.bytes; },
                  [](const CopyPiece& piece, int64_t, int64_t first, int64_t last) {
                    std::memcpy(piece.to + first, piece.from + first, static_cast<size_t>(last - first));
                  });
    });
  }
  std::span<const float> view(const float* data, int64_t count, std::vector<float>&) override {
    return {data, static_cast<size_t>(count)};
  }

  std::vector<int32_t> chooseTokens(const float* logits, std::span<const cpu::TokenChoice> choices,
                                    int64_t vocabSize) override {
    std::vector<int32_t> tokens(choices.size());
    pool_.parallelFor(static_cast<int64_t>(tokens.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n)
        tokens[static_cast<size_t>(n)] = cpu::chooseToken(
            {logits + n * vocabSize, static_cast<size_t>(vocabSize)}, choices[static_cast<size_t>(n)]);
    });
    return tokens;
  }

  void matmul(std::span<const cpu::Matmul> ops, int64_t tokens) override { cpu::matmul(pool_, ops, tokens); }
  void toFloat(DataType from, const std::byte* rows, int64_t numRows, int64_t cols, float* out) override {
    cpu::toFloat(pool_, from, rows, numRows, cols, out);
  }
  void fromFloat(DataType to, const float* rows, int64_t numRows, int64_t cols, std::byte* out) override {
    cpu::fromFloat(pool_, to, rows, numRows, cols, out);
  }
  void norm(const float* x, const float* weight, const float* bias, float epsilon, int64_t tokens, int64_t size,
            float* y) override {
    if (bias) {
      cpu::layerNorm(pool_, x, weight, bias, epsilon, tokens, size, y);
    } else {
      cpu::rmsNorm(pool_, x, weight, epsilon, tokens, size, y);
    }
  }
  void add(const float* x, int64_t count, float* y) override { cpu::add(pool_, x, count, y); }
  void activate(cpu::Activation f, const float* gate, int64_t count, float* x) override {
    cpu::activate(pool_, f, gate, count, x);
  }
  void rope(std::span<const int32_t> positions, const float* inverseFrequencies, int64_t numHeads, int64_t headDim,
            int64_t xStride, float* x) override {
    cpu::rope(pool_, positions.data(), inverseFrequencies, static_cast<int64_t>(positions.size()), numHeads, headDim,
              xStride, x);
  }
  void attention(const cpu::AttentionShape& shape, std::span<const cpu::AttentionSequence> sequences) override {
    cpu::attention(pool_, shape, sequences);
  }
  void storeKvRows(const KvRows& from, std::span<const KvRun> runs) override {
    cpu::storeKvRows(pool_, from, runs);
  }

  void route(const float* scores, int64_t tokens, const cpu::Routing& routing, const cpu::ExpertRows& out) override {
    cpu::route(scores, tokens, routing, out);
  }
  void gatherRows(const float* x, const int32_t* rows, int64_t count, int64_t size, float* out) override {
    pool_.parallelFor(count, kRowsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) std::copy_n(x + rows[n] * size, size, out + n * size);
    });
  }
  void matmulByExpert(std::span<const cpu::Matmul> ops, const int32_t* ends, int64_t numExperts, int64_t) override;
  void addExpertRows(const float* x, const cpu::ExpertRows& rows, int64_t tokens, int64_t numActive, int64_t size,
                     float* y) override {
    pool_.parallelFor(tokens, kRowsPerTask, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin * numActive; i < end * numActive; ++i) {
        const float* const from = x + rows.rows[i] * size;
        float* const to = y + i / numActive * size;
        for (int64_t c = 0; c < size; ++c) to[c] += rows.weights[i] * from[c];
      }
    });
  }

 private:
  ThreadPool& pool_;
  MemoryBudget& budget_;
  PacedLink cpuToGpu_;
  PacedLink gpuToCpu_;
};

void HostDevice::matmulByExpert(std::span<const cpu::Matmul> ops, const int32_t* ends, int64_t numExperts, int64_t) {
  const auto each = ops.size() / static_cast<size_t>(numExperts);
  int64_t begin = 0;
  for (size_t e = 0; e < static_cast<size_t>(numExperts); begin = ends[e++]) {
    if (begin == ends[e]) continue;
    std::vector<cpu::Matmul> own(ops.begin() + static_cast<int64_t>(e * each),
                                 ops.begin() + static_cast<int64_t>((e + 1) * each));
    for (cpu::Matmul& op : own) {
      op.x += begin * op.xStride;
      op.out += begin * op.outStride;
    }
    cpu::matmul(pool_, own, ends[e] - begin);
  }
}

}  // namespace

std::unique_ptr<Device> makeDevice(DeviceKind kind, ThreadPool& pool, PerTier<std::unique_ptr<MemoryBudget>>& budgets,
                                   double cpuToGpuRate, double gpuToCpuRate) {
  switch (kind) {
    case DeviceKind::kCpu: return std::make_unique<HostDevice>(pool, *budgets[Tier::kCpu], kUnpaced, kUnpaced);
    case DeviceKind::kEmulated:
      return std::make_unique<HostDevice>(pool, *budgets[Tier::kGpu], cpuToGpuRate, gpuToCpuRate);
    case DeviceKind::kCuda: break;
  }
  return makeCudaDevice(pool, budgets);
}

}  // namespace flexplan
