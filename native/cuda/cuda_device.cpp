// An NVIDIA GPU as device. Memory: one arena on the GPU, charged to the gpu budget; the cpu budget's memory is pinned
// as long as the device lives. Operations are queued on one stream, copies of each direction on streams of their own.
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <deque>
#include <tuple>

#include "core/error.h"
#include "cuda/arena.h"
#include "cuda/cuda_api.h"
#include "cuda/cublas.h"
#include "cuda/cuda_link.h"
#include "cuda/kernels.h"
#include "cuda/pinned.h"
#include "cuda/upload_ring.h"
#include "model/device.h"

namespace flexplan::cuda {
namespace {

using Budgets = PerTier<std::unique_ptr<MemoryBudget>>;

// Copies inside the device: a few are issued one by one, more of them become one launch.
constexpr size_t kFewCopies = 4;
// Partial sums of decode attention: more than fits is attended by several launches.
constexpr int64_t kPartialSumBytes = int64_t{32} << 20;
// KV rows: runs shorter than this on average are stored by one launch that knows each token's place.
constexpr int64_t kShortRun = 64;

int64_t numRows(const cpu::AttentionSequence& sequence) { return sequence.numPast + sequence.numQueries; }

// Rows of one page, in the kernels' terms.
int64_t pageRowsOf(const cpu::AttentionSequence& sequence) {
  const int64_t pageRows = sequence.kv.pageRows;
  if (pageRows >= numRows(sequence)) return kWholeSequence;
  if (!std::has_single_bit(static_cast<uint64_t>(pageRows)))
    throw Error(ErrorCode::kUnsupported, "expected KV pages of a power of two rows on a GPU, got " +
                                             std::to_string(pageRows) + "; use the cpu device");
  return pageRows;
}

int64_t numPages(const cpu::AttentionSequence& sequence) {
  return (numRows(sequence) + sequence.kv.pageRows - 1) / sequence.kv.pageRows;
}

DeviceInfo firstUsable(CudaApi& api) {
  const auto devices = api.devices();
  if (devices.empty())
    throw Error(
        ErrorCode::kNoDevice,
        "expected a CUDA device, got none; check the driver with nvidia-smi and CUDA_VISIBLE_DEVICES, or use the "
        "cpu device");
  const DeviceInfo& first = devices.front();
  if (first.computeCapability < kLeastComputeCapability)
    throw Error(ErrorCode::kNoDevice, "expected a GPU of compute capability 7.5 or newer, got " + first.name + " of " +
                                          std::to_string(first.computeCapability / 10) + "." +
                                          std::to_string(first.computeCapability % 10) +
                                          "; choose another with CUDA_VISIBLE_DEVICES, or use the cpu device");
  return first;
}

// The cpu budget's memory is pinned from here on, and no longer when this ends.
class Pinning {
 public:
  Pinning(CudaApi& api, ThreadPool& pool, MemoryBudget& budget) : pinner_(api, pool), budget_(budget) {
    budget.pinWith(&pinner_);
  }
  ~Pinning() { budget_.pinWith(nullptr); }
  Pinning(const Pinning&) = delete;
  Pinning& operator=(const Pinning&) = delete;

 private:
  CudaPinner pinner_;
  MemoryBudget& budget_;
};

// The operations so far, as events that are used in turn. A number whose event has been used again is awaited by the
// later one: no less is done then.
class MarkRing {
 public:
  explicit MarkRing(CudaApi& api) : api_(api) {
    for (int64_t n = 0; n < kMarks; ++n) events_.emplace_back(api);
  }
  int64_t mark(Stream stream) {
    api_.record(events_[index(++last_)], stream);
    return last_;
  }
  int64_t last() const { return last_; }
  void await(int64_t mark) {
    if (mark <= done_.load(std::memory_order_acquire)) return;
    awaitSoon(api_, events_[index(mark)]);
    int64_t done = done_.load(std::memory_order_relaxed);
    while (done < mark && !done_.compare_exchange_weak(done, mark, std::memory_order_release)) {
    }
  }

 private:
  static constexpr int64_t kMarks = 64;
  static size_t index(int64_t mark) { return static_cast<size_t>(mark % kMarks); }

  CudaApi& api_;
  std::deque<OwnedEvent> events_;
  int64_t last_ = 0;
  std::atomic<int64_t> done_{0};
};

// What operations need beside their operands.
struct Scratch {
  TierBuffer input;  // of a matmul, in the type that is multiplied
  TierBuffer seen;   // on the host: what view() shows
};

class CudaDevice final : public Device {
 public:
  CudaDevice(std::unique_ptr<CudaApi> api, ThreadPool& pool, Budgets& budgets);
  ~CudaDevice() override { finish(); }

  Tier tier() const override { return Tier::kGpu; }
  TierBuffer allocate(int64_t bytes, const std::string& what, size_t alignment) override;
  LinkChannel& cpuToGpu() override { return cpuToGpu_; }
  LinkChannel& gpuToCpu() override { return gpuToCpu_; }
  std::shared_ptr<void> reserve(const ModelShape& shape, const LaunchLimits& limits) override;
  int64_t mark() override;
  void await(int64_t mark) override { marks_.await(mark); }
  void finish() noexcept override { api_->finish(stream_); }

  void copy(std::span<const CopyPiece> pieces) override;
  std::span<const float> view(const float* data, int64_t count, std::vector<float>& scratch) override;
  std::vector<int32_t> chooseTokens(const float* logits, std::span<const cpu::TokenChoice> choices,
                                    int64_t vocabSize) override;
  void matmul(std::span<const cpu::Matmul> ops, int64_t tokens) override;
  void toFloat(DataType from, const std::byte* rows, int64_t numRows, int64_t cols, float* out) override {
    cuda::toFloat(next(), from, rows, numRows, cols, out);
  }
  void fromFloat(DataType to, const float* rows, int64_t numRows, int64_t cols, std::byte* out) override {
    cuda::fromFloat(next(), to, rows, numRows, cols, out);
  }
  void norm(const float* x, const float* weight, const float* bias, float epsilon, int64_t tokens, int64_t size,
            float* y) override {
    cuda::norm(next(), x, weight, bias, epsilon, tokens, size, y);
  }
  void add(const float* x, int64_t count, float* y) override { cuda::add(next(), x, count, y); }
  void activate(cpu::Activation f, const float* gate, int64_t count, float* x) override {
    cuda::activate(next(), f, gate, count, x);
  }
  void rope(std::span<const int32_t> positions, const float* inverseFrequencies, int64_t numHeads, int64_t headDim,
            int64_t xStride, float* x) override;
  void attention(const cpu::AttentionShape& shape, std::span<const cpu::AttentionSequence> sequences) override;
  void storeKvRows(const KvRows& from, std::span<const KvRun> runs) override;
  void route(const float* scores, int64_t tokens, const cpu::Routing& routing, const cpu::ExpertRows& out) override {
    cuda::route(next(), scores, tokens, routing, out);
  }
  void gatherRows(const float* x, const int32_t* rows, int64_t count, int64_t size, float* out) override {
    cuda::gatherRows(next(), DataType::kFloat32, reinterpret_cast<const std::byte*>(x), rows, count, size, out);
  }
  void matmulByExpert(std::span<const cpu::Matmul> ops, const int32_t* ends, int64_t numExperts,
                      int64_t numRows) override;
  void addExpertRows(const float* x, const cpu::ExpertRows& rows, int64_t tokens, int64_t numActive, int64_t size,
                     float* y) override {
    cuda::addExpertRows(next(), x, rows, tokens, numActive, size, y);
  }

 private:
  // The stream for the operation that is queued next; what it needs is on its way.
  Stream next();
  struct Input {
    const void* x;
    int64_t stride;
  };
  Input inputFor(const cpu::Matmul& op, int64_t tokens);
  static Matmul withInput(const cpu::Matmul& op, const Input& input);
  void multiply(std::span<const cpu::Matmul> ops, int64_t tokens);
  void multiplyByCublas(const cpu::Matmul& op, const Input& input, int64_t tokens);
  std::shared_ptr<Scratch> scratch() const;
  AttentionShape shapeOf(const cpu::AttentionShape& shape, const cpu::AttentionSequence& sequence) const;
  const AttentionSequence* upload(std::span<const cpu::AttentionSequence> sequences);
  void attendAlike(const cpu::AttentionShape& shape, std::span<const cpu::AttentionSequence> sequences);
  void decode(const AttentionShape& shape, std::span<const cpu::AttentionSequence> sequences);
  TierBuffer onHost(int64_t bytes, const std::string& what) {
    return TierBuffer::onHost(cpuBudget_, bytes, what, kPageBytes);
  }

  // Below, each needs what stands above it.
  const std::unique_ptr<CudaApi> api_;
  const DeviceInfo info_;
  MemoryBudget& gpuBudget_;
  MemoryBudget& cpuBudget_;
  Arena arena_;
  const Pinning pinning_;
  const OwnedStream stream_;
  MarkRing marks_;
  bool hasNew_ = false;  // operations since the last mark
  const TierBuffer hostRing_, deviceRing_, gather_, partialSums_, cublasWorkspace_;
  UploadRing ring_;
  CudaLink cpuToGpu_, gpuToCpu_;
  const std::unique_ptr<Cublas> cublas_;
  std::weak_ptr<Scratch> scratch_;
};

CudaDevice::CudaDevice(std::unique_ptr<CudaApi> api, ThreadPool& pool, Budgets& budgets)
    : api_(std::move(api)),
      info_(firstUsable(*api_)),
      gpuBudget_(*budgets[Tier::kGpu]),
      cpuBudget_(*budgets[Tier::kCpu]),
      arena_(*api_, info_, gpuBudget_.capacityBytes()),
      pinning_(*api_, pool, cpuBudget_),
      stream_(*api_, Urgency::kUrgent),
      marks_(*api_),
      hostRing_(onHost(UploadRing::kBytes, "the GPU's inputs")),
      deviceRing_(allocate(UploadRing::kBytes, "the GPU's inputs", kPageBytes)),
      gather_(onHost(2 * CudaLink::kBuffers * CudaLink::kBufferBytes, "gathered copies")),
      partialSums_(allocate(kPartialSumBytes, "decode attention", kPageBytes)),
      cublasWorkspace_(allocate(Cublas::kWorkspaceBytes, "cuBLAS", kPageBytes)),
      ring_(*api_, stream_, hostRing_.data(), deviceRing_.data()),
      cpuToGpu_(*api_, CopyKind::kToDevice, gather_.data()),
      gpuToCpu_(*api_, CopyKind::kToHost, gather_.data() + CudaLink::kBuffers * CudaLink::kBufferBytes),
      cublas_(Cublas::load(stream_, cublasWorkspace_.data())) {}

TierBuffer CudaDevice::allocate(int64_t bytes, const std::string& what, size_t alignment) {
  if (bytes <= 0) return {};
  const int64_t rounded = roundUp(bytes, static_cast<int64_t>(alignment));
  MemoryBudget::Charge charge = gpuBudget_.take(rounded, what);
  std::byte* const memory = arena_.take(rounded, static_cast<int64_t>(alignment), what);
  return TierBuffer(std::move(charge), {memory, [this](void* piece) { arena_.give(static_cast<std::byte*>(piece)); }},
                    memory);
}

std::shared_ptr<void> CudaDevice::reserve(const ModelShape& shape, const LaunchLimits& limits) {
  auto scratch = std::make_shared<Scratch>();
  scratch->input = allocate(matmulInputBytes(DataType::kFloat16, limits.tokens, shape.widestInput()), "matmul inputs",
                            kCacheLineBytes);
  scratch->seen = TierBuffer::onHost(cpuBudget_, limits.sequences * shape.vocabSize * int64_t{sizeof(float)}, "logits");
  scratch_ = scratch;
  return scratch;
}

std::shared_ptr<Scratch> CudaDevice::scratch() const {
  if (auto scratch = scratch_.lock()) return scratch;
  throw Error(ErrorCode::kEngine,
              "expected reserve() before operations that need scratch memory, got none; this is a fault of the engine");
}

Stream CudaDevice::next() {
  ring_.send();
  hasNew_ = true;
  return stream_;
}

int64_t CudaDevice::mark() {
  if (!hasNew_) return marks_.last();
  hasNew_ = false;
  return marks_.mark(stream_);
}

void CudaDevice::copy(std::span<const CopyPiece> pieces) {
  if (pieces.size() <= kFewCopies) {
    for (const CopyPiece& piece : pieces) api_->copy(piece.to, piece.from, piece.bytes, CopyKind::kOnDevice, next());
    return;
  }
  constexpr size_t kMostSpans = UploadRing::kSegmentBytes / sizeof(CopySpan);
  while (!pieces.empty()) {
    const auto some = pieces.first(std::min(pieces.size(), kMostSpans));
    pieces = pieces.subspan(some.size());
    std::vector<CopySpan> spans;
    int64_t most = 0;
    for (const CopyPiece& piece : some) {
      spans.push_back({piece.to, piece.from, piece.bytes});
      most = std::max(most, piece.bytes);
    }
    const CopySpan* const uploaded = ring_.put(std::span<const CopySpan>(spans));
    copySpans(next(), uploaded, static_cast<int64_t>(spans.size()), most);
  }
}

std::span<const float> CudaDevice::view(const float* data, int64_t count, std::vector<float>& scratch) {
  const auto reserved = scratch_.lock();
  const int64_t bytes = count * int64_t{sizeof(float)};
  float* seen = nullptr;
  if (reserved && bytes <= reserved->seen.bytes()) {
    seen = reserved->seen.as<float>();
  } else {
    scratch.resize(static_cast<size_t>(count));
    seen = scratch.data();
  }
  api_->copy(seen, data, bytes, CopyKind::kToHost, next());
  await(mark());
  return {seen, static_cast<size_t>(count)};
}

// Tokens are chosen into the memory of a matmul's input, which is in use by nobody then and has room for more.
std::vector<int32_t> CudaDevice::chooseTokens(const float* logits, std::span<const cpu::TokenChoice> choices,
                                              int64_t vocabSize) {
  const auto reserved = scratch();
  const auto count = static_cast<int64_t>(choices.size());
  const int64_t bytes = count * int64_t{sizeof(int32_t)};
  if (bytes > std::min(reserved->input.bytes(), reserved->seen.bytes()))
    throw Error(ErrorCode::kEngine, "expected as many sequences as reserved, got " + std::to_string(count) +
                                        "; this is a fault of the engine");
  auto* const tokens = reserved->input.as<int32_t>();
  const cpu::TokenChoice* const uploaded = ring_.put(choices);
  cuda::chooseTokens(next(), logits, uploaded, count, vocabSize, tokens);
  const auto* const seen = reserved->seen.as<int32_t>();
  api_->copy(reserved->seen.data(), tokens, bytes, CopyKind::kToHost, next());
  await(mark());
  return {seen, seen + count};
}

// Products that share type and input are launched together.
void CudaDevice::matmul(std::span<const cpu::Matmul> ops, int64_t tokens) {
  while (!ops.empty() && tokens > 0) {
    const cpu::Matmul& first = ops.front();
    size_t count = 1;
    while (count < ops.size() && count < size_t{kMostMatmuls} && ops[count].weight.dtype == first.weight.dtype &&
           ops[count].weight.cols == first.weight.cols && ops[count].x == first.x &&
           ops[count].xStride == first.xStride)
      ++count;
    multiply(ops.first(count), tokens);
    ops = ops.subspan(count);
  }
}

void CudaDevice::multiply(std::span<const cpu::Matmul> ops, int64_t tokens) {
  const Input input = inputFor(ops.front(), tokens);
  if (cublas_ && tokens > kFewTokens && ops.front().weight.dtype != DataType::kInt4) {
    for (const cpu::Matmul& op : ops) multiplyByCublas(op, input, tokens);
    return;
  }
  std::array<Matmul, kMostMatmuls> products;
  for (size_t n = 0; n < ops.size(); ++n) products[n] = withInput(ops[n], input);
  cuda::matmul(next(), products.data(), static_cast<int>(ops.size()), tokens);
}

// One launch for each projection: that of all experts.
void CudaDevice::matmulByExpert(std::span<const cpu::Matmul> ops, const int32_t* ends, int64_t numExperts,
                                int64_t numRows) {
  if (ops.empty() || numRows == 0) return;
  const Input input = inputFor(ops.front(), numRows);
  const size_t count = static_cast<size_t>(numExperts), each = ops.size() / count;
  for (size_t projection = 0; projection < each; ++projection) {
    std::vector<Matmul> products;
    for (size_t e = 0; e < count; ++e) products.push_back(withInput(ops[e * each + projection], input));
    const Matmul* const uploaded = ring_.put(std::span<const Matmul>(products));
    cuda::matmulByExpert(next(), products.data(), uploaded, static_cast<int>(count), ends, numRows);
  }
}

Matmul CudaDevice::withInput(const cpu::Matmul& op, const Input& input) {
  Matmul product{op.weight.dtype, op.weight.cols, {},     op.weight.numPieces, op.bias,
                 input.x,         input.stride,   op.out, op.outStride};
  for (int piece = 0; piece < op.weight.numPieces; ++piece)
    product.pieces[piece] = {op.weight.pieces[piece].data, op.weight.pieces[piece].rows};
  return product;
}

// What op multiplies, in the type that is multiplied.
CudaDevice::Input CudaDevice::inputFor(const cpu::Matmul& op, int64_t tokens) {
  if (op.weight.dtype == DataType::kFloat32) return {op.x, op.xStride};
  const auto reserved = scratch();
  const int64_t bytes = matmulInputBytes(op.weight.dtype, tokens, op.weight.cols);
  if (bytes > reserved->input.bytes())
    throw Error(ErrorCode::kEngine, "expected matmuls of at most " + std::to_string(reserved->input.bytes()) +
                                        " bytes of input as reserved, got " + std::to_string(bytes) +
                                        "; this is a fault of the engine");
  matmulInput(next(), op.weight.dtype, op.x, op.xStride, tokens, op.weight.cols, reserved->input.data());
  return {reserved->input.data(), matmulInputStride(op.weight.cols)};
}

// The bias is written first and the products are added to it.
void CudaDevice::multiplyByCublas(const cpu::Matmul& op, const Input& input, int64_t tokens) {
  float* out = op.out;
  if (op.bias) {
    int64_t rows = 0;
    for (int piece = 0; piece < op.weight.numPieces; ++piece) rows += op.weight.pieces[piece].rows;
    repeatRow(next(), op.bias, rows, tokens, op.outStride, out);
  }
  for (int n = 0; n < op.weight.numPieces; ++n) {
    const cpu::WeightPiece& piece = op.weight.pieces[n];
    if (piece.rows == 0) continue;
    next();
    cublas_->multiply(
        {op.weight.dtype, piece.data, input.x, out, piece.rows, op.weight.cols, tokens, input.stride, op.outStride},
        op.bias != nullptr);
    out += piece.rows;
  }
}

void CudaDevice::rope(std::span<const int32_t> positions, const float* inverseFrequencies, int64_t numHeads,
                      int64_t headDim, int64_t xStride, float* x) {
  const int32_t* const uploaded = ring_.putAgain(positions);
  const float* const frequencies =
      ring_.putAgain(std::span<const float>(inverseFrequencies, static_cast<size_t>(headDim / 2)));
  cuda::rope(next(), uploaded, frequencies, static_cast<int64_t>(positions.size()), numHeads, headDim, xStride, x);
}

void CudaDevice::storeKvRows(const KvRows& from, std::span<const KvRun> runs) {
  int64_t tokens = 0;
  for (const KvRun& run : runs) tokens += run.tokens;
  if (tokens >= kShortRun * static_cast<int64_t>(runs.size()) || runs.size() == 1) {
    int64_t row = 0;
    for (const KvRun& run : runs) {
      const int64_t at = row * from.stride;
      cuda::storeKvRows(next(), from.dtype, from.k + at, from.v + at, from.stride, run.tokens, from.numKvHeads,
                        from.headDim, {run.rows, nullptr});
      row += run.tokens;
    }
    return;
  }
  const auto rowBytes = static_cast<int64_t>(cpu::kvRowBytes(from.dtype, from.numKvHeads, from.headDim));
  std::vector<std::byte*> places;
  for (const KvRun& run : runs)
    for (int64_t token = 0; token < run.tokens; ++token) places.push_back(run.rows + token * rowBytes);
  std::byte* const* const uploaded = ring_.put(std::span<std::byte* const>(places));
  cuda::storeKvRows(next(), from.dtype, from.k, from.v, from.stride, tokens, from.numKvHeads, from.headDim,
                    {nullptr, uploaded});
}

// Sequences that are attended by one launch: of one kind (a single query or several) and with pages of one size.
void CudaDevice::attention(const cpu::AttentionShape& shape, std::span<const cpu::AttentionSequence> sequences) {
  std::vector<cpu::AttentionSequence> sorted(sequences.begin(), sequences.end());
  const auto kind = [](const cpu::AttentionSequence& sequence) {
    return std::tuple(sequence.numQueries > 1, sequence.kv.dtype, pageRowsOf(sequence));
  };
  std::ranges::stable_sort(sorted, {}, kind);
  for (auto begin = sorted.begin(); begin != sorted.end();) {
    const auto end = std::find_if(begin, sorted.end(), [&](const auto& other) { return kind(other) != kind(*begin); });
    attendAlike(shape, {begin, end});
    begin = end;
  }
}

void CudaDevice::attendAlike(const cpu::AttentionShape& shape, std::span<const cpu::AttentionSequence> sequences) {
  const cpu::AttentionSequence& first = sequences.front();
  const AttentionShape common{shape.numHeads,  shape.numKvHeads,    shape.headDim,  shape.qStride,
                              shape.outStride, shape.slidingWindow, first.kv.dtype, pageRowsOf(first)};
  if (first.numQueries > 1) {
    int64_t most = 0;
    for (const auto& sequence : sequences) most = std::max(most, sequence.numQueries);
    const AttentionSequence* const uploaded = upload(sequences);
    prefillAttention(next(), common, uploaded, static_cast<int64_t>(sequences.size()), most);
    return;
  }
  decode(common, sequences);
}

// As many at a time as their partial sums have room.
void CudaDevice::decode(const AttentionShape& shape, std::span<const cpu::AttentionSequence> sequences) {
  int64_t most = 0;
  for (const auto& sequence : sequences) most = std::max(most, numRows(sequence));
  const int64_t bytesOfOne = decodeAttentionScratchBytes(shape.numHeads, shape.headDim, 1, most);
  if (bytesOfOne > kPartialSumBytes)
    throw Error(ErrorCode::kUnsupported, "expected a sequence whose decode attention needs at most " +
                                             std::to_string(kPartialSumBytes) + " bytes, got " +
                                             std::to_string(bytesOfOne) + " for " + std::to_string(most) +
                                             " positions; use shorter prompts");
  const auto atOnce = static_cast<size_t>(kPartialSumBytes / std::max<int64_t>(1, bytesOfOne));
  while (!sequences.empty()) {
    const auto some = sequences.first(std::min(sequences.size(), atOnce));
    sequences = sequences.subspan(some.size());
    const AttentionSequence* const uploaded = upload(some);
    decodeAttention(next(), shape, uploaded, static_cast<int64_t>(some.size()), most, partialSums_.data());
  }
}

const AttentionSequence* CudaDevice::upload(std::span<const cpu::AttentionSequence> sequences) {
  std::vector<const std::byte*> pages;
  for (const auto& sequence : sequences)
    pages.insert(pages.end(), sequence.kv.pages, sequence.kv.pages + numPages(sequence));
  const std::byte* const* at = ring_.put(std::span<const std::byte* const>(pages));
  std::vector<AttentionSequence> uploaded;
  for (const auto& sequence : sequences) {
    uploaded.push_back({at, sequence.q, sequence.out, static_cast<int32_t>(sequence.numPast),
                        static_cast<int32_t>(sequence.numQueries)});
    at += numPages(sequence);
  }
  return ring_.put(std::span<const AttentionSequence>(uploaded));
}

}  // namespace
}  // namespace flexplan::cuda

namespace flexplan {

std::unique_ptr<Device> makeCudaDevice(ThreadPool& pool, PerTier<std::unique_ptr<MemoryBudget>>& budgets) {
  return std::make_unique<cuda::CudaDevice>(cuda::systemCudaApi(), pool, budgets);
}

}  // namespace flexplan
