#include "test/tiny_model.h"

#include <unistd.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <utility>

#include "core/half.h"

namespace flexplan::test {
namespace {

constexpr int64_t kUnlimited = int64_t{1} << 50;

// Appends random tensors to a file, at offsets that no page or word is aligned to.
class WeightFile {
 public:
  WeightFile(TinyModel& model, const std::string& path) : model_(model), path_(path), file_(path, std::ios::binary) {
    file_.write("header of 13B", 13);
    offset_ = 13;
  }
  void matrix(int64_t layer, const std::string& role, int64_t rows, int64_t cols) {
    add(layer, role, rows, cols, 0.15f, 0);
  }
  // Norms are near 1, biases near 0.
  void vector(int64_t layer, const std::string& role, int64_t size, float around) {
    add(layer, role, size, 1, 0.1f, around);
  }
  void norm(int64_t layer, const std::string& role, int64_t size) {
    vector(layer, role, size, 1);
    if (!model_.shape.rmsNorm) vector(layer, role + "Bias", size, 0);
  }

 private:
  void add(int64_t layer, const std::string& role, int64_t rows, int64_t cols, float range, float around) {
    const DataType dtype = model_.shape.dtype;
    model_.tensors.push_back({layer, role, path_, offset_, dtype, rows, cols, 0, rows});
    for (int64_t n = 0; n < rows * cols; ++n) {
      const float value = around + random_.uniform(-range, range);
      const uint16_t half = dtype == DataType::kFloat16 ? floatToFloat16(value) : floatToBFloat16(value);
      if (dtype == DataType::kFloat32) {
        file_.write(reinterpret_cast<const char*>(&value), sizeof(value));
      } else {
        file_.write(reinterpret_cast<const char*>(&half), sizeof(half));
      }
    }
    offset_ += rows * static_cast<int64_t>(rowBytes(dtype, cols));
  }

  TinyModel& model_;
  const std::string path_;
  std::ofstream file_;
  int64_t offset_;
  Random random_{7};
};

void setDimensions(ModelShape& shape, Family family, DataType dtype) {
  const bool opt = family == Family::kOpt || family == Family::kPostNormOpt;
  shape.numLayers = 3;
  shape.hiddenSize = 48;
  shape.ffnSize = 96;
  shape.numHeads = 4;
  shape.numKvHeads = opt ? 4 : 2;
  shape.headDim = opt ? 12 : 16;
  shape.vocabSize = 131;
  shape.embeddingSize = family == Family::kPostNormOpt ? 24 : 48;
  shape.dtype = dtype;
  shape.tiedEmbeddings = opt;
  shape.rmsNorm = !opt;
  shape.normEpsilon = 1e-5f;
  shape.preNorm = family != Family::kPostNormOpt;
  shape.finalNorm = shape.preNorm;
  shape.learnedPositions = opt;
  shape.positionOffset = opt ? 2 : 0;
  shape.qkNorm = family == Family::kLlama;
  shape.gatedMlp = !opt;
  shape.activation = opt ? cpu::Activation::kRelu : cpu::Activation::kSilu;
  shape.slidingWindow = family == Family::kMixtral ? 9 : 0;
  shape.numExperts = family == Family::kMixtral ? 4 : 0;
  shape.numActiveExperts = family == Family::kMixtral ? 2 : 0;
  shape.normalizeTopK = true;
  for (int64_t d = 0; !opt && d < shape.headDim / 2; ++d)
    shape.inverseFrequencies.push_back(
        std::pow(10000.0f, -2.0f * static_cast<float>(d) / static_cast<float>(shape.headDim)));
}

void writeMlp(WeightFile& file, const ModelShape& shape, int64_t layer, const std::string& prefix) {
  if (shape.gatedMlp) file.matrix(layer, prefix + "gate", shape.ffnSize, shape.hiddenSize);
  file.matrix(layer, prefix + "up", shape.ffnSize, shape.hiddenSize);
  file.matrix(layer, prefix + "down", shape.hiddenSize, shape.ffnSize);
}

void writeDecoder(WeightFile& file, const ModelShape& shape, int64_t layer) {
  file.matrix(layer, "q", shape.qSize(), shape.hiddenSize);
  file.matrix(layer, "k", shape.kvSize(), shape.hiddenSize);
  file.matrix(layer, "v", shape.kvSize(), shape.hiddenSize);
  file.matrix(layer, "o", shape.hiddenSize, shape.qSize());
  if (shape.numExperts > 0) file.matrix(layer, "router", shape.numExperts, shape.hiddenSize);
  for (int64_t e = 0; e < shape.numExperts; ++e) writeMlp(file, shape, layer, "experts." + std::to_string(e) + ".");
  if (shape.numExperts == 0) writeMlp(file, shape, layer, "");
  file.norm(layer, "attentionNorm", shape.hiddenSize);
  file.norm(layer, "mlpNorm", shape.hiddenSize);
  if (shape.qkNorm) {
    file.vector(layer, "qNorm", shape.headDim, 1);
    file.vector(layer, "kNorm", shape.headDim, 1);
  }
  if (!shape.learnedPositions) return;
  for (const char* const role : {"qBias", "kBias", "vBias"}) file.vector(layer, role, shape.qSize(), 0);
  for (const char* const role : {"oBias", "downBias"}) file.vector(layer, role, shape.hiddenSize, 0);
  file.vector(layer, "upBias", shape.ffnSize, 0);
}

// Random shares of three tiers, often all of one.
std::array<double, kNumTiers> randomShares(Random& random, bool hasGpu) {
  const int64_t only = random.below(5);
  if (only < 3 && (hasGpu || only > 0)) return {only == 0 ? 1.0 : 0.0, only == 1 ? 1.0 : 0.0, only == 2 ? 1.0 : 0.0};
  std::array<double, kNumTiers> shares = {hasGpu ? random.uniform(0, 1) : 0, random.uniform(0, 1),
                                          random.uniform(0.01f, 1)};
  const double sum = shares[0] + shares[1] + shares[2];
  for (double& share : shares) share /= sum;
  return shares;
}

std::vector<Tier> randomTiers(Random& random, bool hasGpu, int64_t count) {
  const auto shares = randomShares(random, hasGpu);
  std::vector<Tier> tiers;
  for (int64_t n = 0; n < count; ++n) {
    const double x = random.uniform(0, 1);
    tiers.push_back(x < shares[0] ? Tier::kGpu : x < shares[0] + shares[1] ? Tier::kCpu : Tier::kDisk);
  }
  return tiers;
}

}  // namespace

TemporaryFolder::TemporaryFolder() : path_((std::filesystem::temp_directory_path() / "flexplan-test-XXXXXX").string()) {
  if (!mkdtemp(path_.data())) throw std::runtime_error("no temporary folder");
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

TinyModel::TinyModel(Family family, DataType dtype, const std::string& path) {
  setDimensions(shape, family, dtype);
  WeightFile file(*this, path);
  if (!shape.tiedEmbeddings) file.matrix(0, "tokenEmbedding", shape.vocabSize, shape.embeddingSize);
  if (shape.learnedPositions) file.matrix(0, "positionEmbedding", 66, shape.hiddenSize);
  if (shape.projectsEmbedding()) file.matrix(0, "projectIn", shape.hiddenSize, shape.embeddingSize);
  for (int64_t layer = 1; layer <= shape.numLayers; ++layer) writeDecoder(file, shape, layer);
  if (shape.projectsEmbedding()) file.matrix(shape.headLayer(), "projectOut", shape.embeddingSize, shape.hiddenSize);
  file.matrix(shape.headLayer(), "head", shape.vocabSize, shape.embeddingSize);
  if (shape.finalNorm) file.norm(shape.headLayer(), "finalNorm", shape.hiddenSize);
}

EngineConfig plainConfig(const TinyModel& model, const TemporaryFolder& folder) {
  EngineConfig config{};
  config.device = DeviceKind::kCpu;
  config.numThreads = 1;
  config.capacityBytes = {{{kUnlimited, kUnlimited, kUnlimited}}};
  config.cpuToGpuRate = config.gpuToCpuRate = 1e9;
  config.spillDirectory = folder.path();
  config.model = model.shape;
  config.tensors = model.tensors;
  config.gpuBatchSize = config.numGpuBatches = 1;
  config.prefillChunkTokens = 2048;
  config.weightBits = config.kvCacheBits = 16;
  config.kvTiers = config.activationTiers = {Tier::kCpu};
  config.cpuAttention = {0};
  return config;
}

void forEachTinyCase(const TemporaryFolder& folder, const std::function<void(const TinyCase&)>& visit) {
  constexpr std::pair<Family, DataType> kKinds[] = {{Family::kOpt, DataType::kFloat16},
                                                    {Family::kPostNormOpt, DataType::kFloat32},
                                                    {Family::kLlama, DataType::kBFloat16},
                                                    {Family::kMixtral, DataType::kFloat32}};
  for (const auto& [family, dtype] : kKinds) {
    const std::string name = "family " + std::to_string(static_cast<int>(family));
    const TinyModel model(family, dtype, folder.file(name));
    for (const auto& [weightBits, kvCacheBits] : {std::pair{16, 16}, {4, 16}, {16, 4}}) {
      EngineConfig base = plainConfig(model, folder);
      base.weightBits = weightBits;
      base.kvCacheBits = kvCacheBits;
      const std::string bits = std::to_string(weightBits) + " and " + std::to_string(kvCacheBits) + " bits";
      visit({model, base, name + ", " + bits});
    }
  }
}

EngineConfig randomConfig(const EngineConfig& base, Random& random) {
  EngineConfig config = base;
  const bool hasGpu = random.below(3) > 0;
  config.device = hasGpu ? DeviceKind::kEmulated : DeviceKind::kCpu;
  config.numThreads = static_cast<int>(1 + random.below(3));
  // Slow to fast: which task is the last to be ready differs from run to run.
  config.cpuToGpuRate = std::pow(10.0, random.uniform(7.5f, 10));
  config.gpuToCpuRate = std::pow(10.0, random.uniform(7.5f, 10));
  config.gpuBatchSize = 1 + random.below(4);
  config.numGpuBatches = 1 + random.below(4);
  config.prefillChunkTokens = 1 + random.below(60);
  config.overlap = random.below(4) > 0;
  config.schedule = random.below(2) == 0 ? Schedule::kZigzag : Schedule::kDiagonal;
  config.trace = true;
  config.kvTiers = randomTiers(random, hasGpu, config.blockSize());
  config.activationTiers = randomTiers(random, hasGpu, config.blockSize());
  config.cpuAttention.resize(static_cast<size_t>(config.blockSize()));
  for (uint8_t& flag : config.cpuAttention) flag = hasGpu && random.below(2) == 0;
  const auto shares = randomShares(random, hasGpu);
  for (TensorSource& tensor : config.tensors) {
    if (tensor.cols == 1) continue;
    tensor.gpuRows = std::llround(shares[0] * static_cast<double>(tensor.rows));
    tensor.cpuRows = std::llround((shares[0] + shares[1]) * static_cast<double>(tensor.rows)) - tensor.gpuRows;
  }
  return config;
}

std::vector<Sequence> someSequences(const ModelShape& shape, Random& random, int count) {
  std::vector<Sequence> sequences;
  for (int n = 0; n < count; ++n) {
    Sequence sequence{{}, random.below(8), n % 3 == 1 ? 0.9 : 0, 0.9, static_cast<uint64_t>(n), {5}, 2, n % 4 == 0};
    const int64_t promptTokens = 1 + random.below(20);
    for (int64_t t = 0; t < promptTokens; ++t)
      sequence.promptIds.push_back(static_cast<int32_t>(random.below(shape.vocabSize)));
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

}  // namespace flexplan::test
