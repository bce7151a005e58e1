#include "model/weight_loader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.h"

namespace flexplan {
namespace {

constexpr int64_t kMaxChunkBytes = 16 << 20;
constexpr int64_t kPage = static_cast<int64_t>(kPageBytes);
constexpr int64_t kFloatBytes = sizeof(float);

int64_t fileRowBytes(const TensorSource& source) { return static_cast<int64_t>(rowBytes(source.dtype, source.cols)); }

// Vectors are the tensors of one column.
bool isVector(const TensorSource& source) { return source.cols == 1; }

bool isTable(const std::string& role) { return role == "tokenEmbedding" || role == "positionEmbedding"; }

bool isQuantizable(const std::string& role) { return !isTable(role) && role != "router"; }

[[noreturn]] void badTensor(const TensorSource& source, const std::string& expected, int64_t got) {
  throw Error(ErrorCode::kBadInput, "expected " + expected + " for tensor " + source.role + " of schedule layer " +
                                        std::to_string(source.layer) + " in " + source.path + ", got " +
                                        std::to_string(got) + "; check that the files belong to the configuration");
}

}  // namespace

WeightLoader::WeightLoader(Weights& weights, const ModelShape& shape, const std::vector<TensorSource>& tensors,
                           const Weights::Options& options, Device& device,
                           PerTier<std::unique_ptr<MemoryBudget>>& budgets, ThreadPool& pool)
    : weights_(weights),
      shape_(shape),
      tensors_(tensors),
      options_(options),
      device_(device),
      budgets_(budgets),
      pool_(pool) {}

void WeightLoader::load() {
  plan();
  takeMemory();
  for (const Planned& planned : planned_) loadMatrix(planned);
  for (const TensorSource& source : tensors_) {
    if (isVector(source)) loadVector(source);
  }
}

void WeightLoader::plan() {
  for (const TensorSource& source : tensors_) {
    if (source.layer < 0 || source.layer >= shape_.numScheduleLayers())
      badTensor(source, "a schedule layer below " + std::to_string(shape_.numScheduleLayers()), source.layer);
    if (source.rows <= 0 || source.cols <= 0) badTensor(source, "rows and columns", std::min(source.rows, source.cols));
    const auto [file, isNew] = weights_.files_.try_emplace(source.path);
    if (isNew) file->second = DirectFile::openForReading(source.path);
    const int64_t end = source.byteOffset + source.rows * fileRowBytes(source);
    if (end > file->second.sizeBytes())
      badTensor(source, "a file of at least " + std::to_string(end) + " bytes", file->second.sizeBytes());
    chunkBytes_ = std::max(chunkBytes_, std::min(kMaxChunkBytes, source.rows * fileRowBytes(source)));
    chunkBytes_ = std::max(chunkBytes_, fileRowBytes(source));
    if (isVector(source)) {
      vectorFloats_ += source.rows;
    } else {
      planMatrix(source, file->second);
    }
  }
  for (LayerWeights& layer : weights_.layers_) layOut(layer);
}

void WeightLoader::planMatrix(const TensorSource& source, const DirectFile& file) {
  if (source.gpuRows < 0 || source.cpuRows < 0 || source.gpuRows + source.cpuRows > source.rows)
    badTensor(source, "at most " + std::to_string(source.rows) + " rows in memory", source.gpuRows + source.cpuRows);
  if (source.gpuRows > 0 && !device_.hasGpuTier())
    badTensor(source, "no rows on the gpu tier of a cpu device", source.gpuRows);
  const bool quantize = options_.weightBits == 4 && isQuantizable(source.role);
  Matrix matrix;
  matrix.role = source.role;
  matrix.dtype = quantize ? DataType::kInt4 : source.dtype;
  matrix.rows = source.rows;
  matrix.cols = source.cols;
  matrix.rowBytes = static_cast<int64_t>(rowBytes(matrix.dtype, source.cols));
  matrix.tierRows = {{source.gpuRows, source.cpuRows, source.rows - source.gpuRows - source.cpuRows}};
  matrix.isTable = isTable(source.role);
  matrix.file = quantize ? &weights_.spill_ : &file;
  matrix.homeOffset[Tier::kDisk] = source.byteOffset + (source.gpuRows + source.cpuRows) * fileRowBytes(source);
  if (quantize) {
    matrix.homeOffset[Tier::kDisk] = spillBytes_;
    spillBytes_ += roundUp(matrix.tierBytes(Tier::kDisk), kPage);
  } else {
    filedDiskBytes_ += matrix.tierBytes(Tier::kDisk);
  }
  LayerWeights& layer = weights_.layers_[static_cast<size_t>(source.layer)];
  planned_.push_back({&source, &file, &layer, layer.matrices.size()});
  layer.matrices.push_back(std::move(matrix));
}

// The homes of a layer hold its matrices end to end.
void WeightLoader::layOut(LayerWeights& layer) {
  PerTier<int64_t> end{};
  for (Matrix& matrix : layer.matrices) {
    for (const Tier tier : {Tier::kGpu, Tier::kCpu}) {
      matrix.homeOffset[tier] = end[tier];
      end[tier] += matrix.tierBytes(tier);
    }
    end[Tier::kDisk] += matrix.tierBytes(Tier::kDisk);
  }
  for (const Tier tier : {Tier::kGpu, Tier::kCpu, Tier::kDisk}) weights_.placedBytes_[tier] += end[tier];
  layOutStream(layer);
  const std::string what = "weights";
  if (device_.hasGpuTier()) layer.homes[Tier::kGpu] = device_.allocate(end[Tier::kGpu], what);
  layer.homes[Tier::kCpu] = TierBuffer::onHost(*budgets_[Tier::kCpu], end[Tier::kCpu], what);
}

// A weight buffer holds the cpu rows of all streamed matrices, then the disk rows. Without a gpu tier the cpu rows stay
// at home, and disk rows are read straight into the buffer, in whole pages.
void WeightLoader::layOutStream(LayerWeights& layer) {
  const bool gpu = device_.hasGpuTier();
  bool first = true;
  for (Matrix& matrix : layer.matrices) {
    if (matrix.isTable) continue;
    if (gpu && matrix.tierRows[Tier::kCpu] > 0) {
      if (std::exchange(first, false)) layer.cpuStreamHomeOffset = matrix.homeOffset[Tier::kCpu];
      matrix.cpuBufferOffset = layer.cpuStreamBytes;
      layer.cpuStreamBytes += matrix.tierBytes(Tier::kCpu);
    }
  }
  for (Matrix& matrix : layer.matrices) {
    if (matrix.isTable || matrix.tierRows[Tier::kDisk] == 0) continue;
    const PageWindow window = matrix.diskWindow();
    matrix.stagingOffset = layer.diskWindowBytes;
    matrix.diskBufferOffset = gpu ? layer.cpuStreamBytes + layer.diskStreamBytes : matrix.stagingOffset + window.skip;
    layer.diskWindowBytes += window.bytes;
    layer.diskStreamBytes += matrix.tierBytes(Tier::kDisk);
  }
  layer.bufferBytes = gpu ? layer.cpuStreamBytes + layer.diskStreamBytes : layer.diskWindowBytes;
}

void WeightLoader::takeMemory() {
  weights_.vectorMemory_ = device_.allocate(vectorFloats_ * kFloatBytes, "biases and norms");
  weights_.placedBytes_[device_.tier()] += vectorFloats_ * kFloatBytes;
  const int64_t diskBytes = spillBytes_ + filedDiskBytes_;
  weights_.diskCharge_ = budgets_[Tier::kDisk]->take(diskBytes, "weights");
  if (spillBytes_ > 0) weights_.spill_ = DirectFile::createSpill(options_.spillDirectory, spillBytes_, "4-bit weights");

  MemoryBudget& budget = *budgets_[Tier::kCpu];
  staging_ = TierBuffer::onHost(budget, chunkBytes_ + 2 * kPage, "loading", kPageBytes);
  floats_ = TierBuffer::onHost(budget, 2 * chunkBytes_, "loading");
  int64_t packedBytes = 0;
  for (const Planned& planned : planned_) {
    const Matrix& matrix = planned.layer->matrices[planned.index];
    if (matrix.dtype != planned.source->dtype)
      packedBytes =
          std::max(packedBytes, std::min(rowsPerChunk(*planned.source), matrix.rows) * matrix.rowBytes + 2 * kPage);
  }
  packed_ = TierBuffer::onHost(budget, packedBytes, "loading", kPageBytes);
}

int64_t WeightLoader::rowsPerChunk(const TensorSource& source) const {
  return std::max<int64_t>(1, chunkBytes_ / fileRowBytes(source));
}

// Rows [row, row + count) of the file, in the staging buffer.
const std::byte* WeightLoader::readRows(const TensorSource& source, const DirectFile& file, int64_t row,
                                        int64_t count) {
  const int64_t offset = source.byteOffset + row * fileRowBytes(source);
  IoBatch batch(io_, nullptr);
  batch.read(file, offset, count * fileRowBytes(source), staging_.data());
  batch.start(Phase::kPrefill);
  batch.wait();
  return staging_.data() + PageWindow::around(offset, 1).skip;
}

void WeightLoader::toDevice(std::byte* to, const std::byte* from, int64_t bytes) {
  const CopyPiece piece{to, from, bytes};
  device_.cpuToGpu().copy({&piece, 1});
}

void WeightLoader::loadVector(const TensorSource& source) {
  const auto& file = weights_.files_.at(source.path);
  const std::byte* const values = readRows(source, file, 0, source.rows);
  cpu::toFloat(pool_, source.dtype, values, 1, source.rows, floats_.as<float>());
  float* const home = weights_.vectorMemory_.as<float>() + vectorFloatsLoaded_;
  toDevice(reinterpret_cast<std::byte*>(home), floats_.data(), source.rows * kFloatBytes);
  weights_.layers_[static_cast<size_t>(source.layer)].vectors[source.role] = {home, source.rows};
  vectorFloatsLoaded_ += source.rows;
}

void WeightLoader::loadMatrix(const Planned& planned) {
  const Matrix& matrix = planned.layer->matrices[planned.index];
  loadRows(planned, Tier::kGpu, 0);
  loadRows(planned, Tier::kCpu, matrix.tierRows[Tier::kGpu]);
  if (matrix.dtype != planned.source->dtype) spillRows(planned, matrix.rows - matrix.tierRows[Tier::kDisk]);
}

// Converts `count` rows as filed to the stored form at `out`.
void WeightLoader::quantize(const Planned& planned, const std::byte* filed, int64_t count, std::byte* out) {
  const TensorSource& source = *planned.source;
  cpu::toFloat(pool_, source.dtype, filed, count, source.cols, floats_.as<float>());
  cpu::fitInt4(pool_, floats_.as<float>(), count, source.cols, out);
}

void WeightLoader::loadRows(const Planned& planned, Tier tier, int64_t firstRow) {
  const TensorSource& source = *planned.source;
  const Matrix& matrix = planned.layer->matrices[planned.index];
  const bool quantized = matrix.dtype != source.dtype;
  const int64_t numRows = matrix.tierRows[tier];
  std::byte* home = planned.layer->homes[tier].data() + matrix.homeOffset[tier];
  for (int64_t row = 0; row < numRows; row += rowsPerChunk(source)) {
    const int64_t count = std::min(rowsPerChunk(source), numRows - row);
    const int64_t bytes = count * matrix.rowBytes;
    const std::byte* from = readRows(source, *planned.file, firstRow + row, count);
    if (quantized) {
      quantize(planned, from, count, packed_.data());
      from = packed_.data();
    }
    if (tier == Tier::kGpu) {
      toDevice(home, from, bytes);
    } else {
      std::memcpy(home, from, static_cast<size_t>(bytes));
    }
    home += bytes;
  }
}

// Direct I/O writes whole pages: what is left over after a chunk waits at the front of the packed rows for the next
// one.
void WeightLoader::spillRows(const Planned& planned, int64_t firstRow) {
  const TensorSource& source = *planned.source;
  const Matrix& matrix = planned.layer->matrices[planned.index];
  int64_t offset = matrix.homeOffset[Tier::kDisk];
  int64_t pending = 0;
  for (int64_t row = firstRow; row < matrix.rows; row += rowsPerChunk(source)) {
    const int64_t count = std::min(rowsPerChunk(source), matrix.rows - row);
    quantize(planned, readRows(source, *planned.file, row, count), count, packed_.data() + pending);
    pending += count * matrix.rowBytes;
    const bool last = row + count == matrix.rows;
    const int64_t whole = last ? roundUp(pending, kPage) : roundDown(pending, kPage);
    std::memset(packed_.data() + pending, 0, static_cast<size_t>(std::max<int64_t>(0, whole - pending)));
    weights_.spill_.write(offset, whole, packed_.data());
    offset += whole;
    pending = std::max<int64_t>(0, pending - whole);
    std::memmove(packed_.data(), packed_.data() + whole, static_cast<size_t>(pending));
  }
}

}  // namespace flexplan
