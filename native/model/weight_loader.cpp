#include "model/weight_loader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "quant/int4_fit.h"

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

// No row or column is smaller than a byte, so nothing here can overflow.
void checkWithinFile(const TensorSource& source, int64_t fileBytes) {
  if (source.rows <= 0 || source.cols <= 0) badTensor(source, "rows and columns", std::min(source.rows, source.cols));
  if (source.byteOffset < 0 || source.byteOffset > fileBytes || source.cols > fileBytes ||
      source.rows > (fileBytes - source.byteOffset) / fileRowBytes(source))
    badTensor(source,
              "a file that holds its " + std::to_string(source.rows) + " rows from byte " +
                  std::to_string(source.byteOffset) + " on",
              fileBytes);
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
  loadMatrices();
  for (const TensorSource& source : tensors_) {
    if (isVector(source)) loadVector(source);
  }
  if (cache_ && quantizedRows_ != QuantizedRows::kToSpill) weights_.quantizedFile_ = cache_->takeFile();
}

void WeightLoader::loadMatrices() {
  const std::vector<std::string> versions = fileVersions();
  for (const Planned& planned : planned_) {
    if (planned.isQuantized() && quantizedRows_ == QuantizedRows::kFromCache) {
      if (loadCached(planned)) continue;
      replaceCache();
      return loadMatrices();
    }
    loadMatrix(planned);
  }
  if (quantizedRows_ == QuantizedRows::kToCache) finishCache(versions);
}

// The file's content is not what it was. What has been loaded from it was right, but a new file needs every matrix.
void WeightLoader::replaceCache() {
  cache_->remove();
  if (!cache_->create())
    throw Error(ErrorCode::kBadInput, "expected the 4-bit weights in " + options_.quantizationCache +
                                          " to be whole, got a wrong checksum, and no file can be put in their place; "
                                          "choose another place for them or run without");
  quantizedRows_ = QuantizedRows::kToCache;
}

// A cache file whose sources changed while they were read would belong to neither state of them.
void WeightLoader::finishCache(const std::vector<std::string>& versionsBefore) {
  if (fileVersions() == versionsBefore) cache_->publish();
}

void WeightLoader::plan() {
  for (const TensorSource& source : tensors_) {
    if (source.layer < 0 || source.layer >= shape_.numScheduleLayers())
      badTensor(source, "a schedule layer below " + std::to_string(shape_.numScheduleLayers()), source.layer);
    const auto [file, isNew] = weights_.files_.try_emplace(source.path);
    if (isNew) file->second = DirectFile::openForReading(source.path);
    checkWithinFile(source, file->second.sizeBytes());
    chunkBytes_ = std::max(chunkBytes_, std::min(kMaxChunkBytes, source.rows * fileRowBytes(source)));
    chunkBytes_ = std::max(chunkBytes_, fileRowBytes(source));
    if (isVector(source)) {
      vectorFloats_ += source.rows;
    } else {
      planMatrix(source, file->second);
    }
  }
  placeQuantized();
  for (LayerWeights& layer : weights_.layers_) layOut(layer);
}

// Chooses the file that has the disk rows of quantized matrices, and where in it.
void WeightLoader::placeQuantized() {
  std::vector<int64_t> bytes;
  for (const Planned& planned : planned_)
    if (planned.isQuantized()) bytes.push_back(planned.matrix().rows * planned.matrix().rowBytes);
  if (bytes.empty()) return;
  if (!options_.quantizationCache.empty() && !anyFileIsFresh()) {
    cache_.emplace(options_.quantizationCache, cacheIdentity(), bytes);
    if (cache_->open()) quantizedRows_ = QuantizedRows::kFromCache;
    else if (cache_->create()) quantizedRows_ = QuantizedRows::kToCache;
  }
  int64_t spillEnd = 0;
  for (const Planned& planned : planned_) {
    if (!planned.isQuantized()) continue;
    Matrix& matrix = planned.matrix();
    const int64_t diskBytes = matrix.tierBytes(Tier::kDisk);
    matrix.homeOffset[Tier::kDisk] =
        quantizedRows_ == QuantizedRows::kToSpill
            ? spillEnd
            : cache_->offset(planned.quantizedIndex) + (matrix.rows - matrix.tierRows[Tier::kDisk]) * matrix.rowBytes;
    spillEnd += roundUp(diskBytes, kPage);
  }
  quantizedDiskBytes_ = spillEnd;
}

// Everything that the cache's bytes depend on.
std::string WeightLoader::cacheIdentity() const {
  std::string text = "flexplan 4-bit weights, quantizer " + std::to_string(kInt4FitVersion) + "\n";
  for (const auto& [path, file] : weights_.files_)
    text += path.substr(path.rfind('/') + 1) + " " + file.version() + "\n";
  for (const Planned& planned : planned_) {
    if (!planned.isQuantized()) continue;
    const TensorSource& source = *planned.source;
    text += std::to_string(source.layer) + " " + source.role + " " + std::to_string(static_cast<int>(source.dtype)) +
            " " + std::to_string(source.rows) + " " + std::to_string(source.cols) + " " +
            std::to_string(source.byteOffset) + " " + source.path.substr(source.path.rfind('/') + 1) + "\n";
  }
  return text;
}

bool WeightLoader::anyFileIsFresh() const {
  return std::ranges::any_of(weights_.files_, [](const auto& entry) { return entry.second.isFresh(); });
}

std::vector<std::string> WeightLoader::fileVersions() const {
  std::vector<std::string> versions;
  for (const auto& [path, file] : weights_.files_) versions.push_back(file.version());
  return versions;
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
  matrix.file = quantize ? &weights_.quantizedFile_ : &file;
  matrix.homeOffset[Tier::kDisk] = source.byteOffset + (source.gpuRows + source.cpuRows) * fileRowBytes(source);
  if (!quantize) filedDiskBytes_ += matrix.tierBytes(Tier::kDisk);
  LayerWeights& layer = weights_.layers_[static_cast<size_t>(source.layer)];
  planned_.push_back({&source, &file, &layer, layer.matrices.size(), numQuantized_});
  if (quantize) ++numQuantized_;
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
  weights_.diskCharge_ = budgets_[Tier::kDisk]->take(quantizedDiskBytes_ + filedDiskBytes_, "weights");
  if (quantizedDiskBytes_ > 0 && quantizedRows_ == QuantizedRows::kToSpill)
    weights_.quantizedFile_ = DirectFile::createSpill(options_.spillDirectory, quantizedDiskBytes_, "4-bit weights");

  MemoryBudget& budget = *budgets_[Tier::kCpu];
  staging_ = TierBuffer::onHost(budget, chunkBytes_ + 2 * kPage, "loading", kPageBytes);
  floats_ = TierBuffer::onHost(budget, 2 * chunkBytes_, "loading");
  int64_t packedBytes = 0;
  for (const Planned& planned : planned_) {
    const Matrix& matrix = planned.matrix();
    if (planned.isQuantized())
      packedBytes =
          std::max(packedBytes, std::min(rowsPerChunk(*planned.source), matrix.rows) * matrix.rowBytes + 2 * kPage);
  }
  packed_ = TierBuffer::onHost(budget, packedBytes, "loading", kPageBytes);
}

int64_t WeightLoader::rowsPerChunk(const TensorSource& source) const {
  return std::max<int64_t>(1, chunkBytes_ / fileRowBytes(source));
}

// Bytes [offset, offset + bytes) of a file, by way of page-aligned `window`.
const std::byte* WeightLoader::readWindow(const DirectFile& file, int64_t offset, int64_t bytes, std::byte* window) {
  IoBatch batch(io_, nullptr);
  batch.read(file, offset, bytes, window);
  batch.start(Phase::kPrefill);
  batch.wait();
  return window + PageWindow::around(offset, 1).skip;
}

// Rows [row, row + count) of the file, in the staging buffer.
const std::byte* WeightLoader::readRows(const TensorSource& source, const DirectFile& file, int64_t row,
                                        int64_t count) {
  return readWindow(file, source.byteOffset + row * fileRowBytes(source), count * fileRowBytes(source),
                    staging_.data());
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
  const TensorSource& source = *planned.source;
  const Matrix& matrix = planned.matrix();
  const int64_t rowsInMemory = matrix.rows - matrix.tierRows[Tier::kDisk];
  if (!planned.isQuantized()) {
    for (int64_t row = 0; row < rowsInMemory; row += rowsPerChunk(source)) {
      const int64_t count = std::min(rowsPerChunk(source), rowsInMemory - row);
      place(planned, row, count, readRows(source, *planned.file, row, count));
    }
  } else if (quantizedRows_ == QuantizedRows::kToCache) {
    const int64_t position = cache_->offset(planned.quantizedIndex);
    cache_->setChecksum(planned.quantizedIndex, quantizeRows(planned, 0, matrix.rows, &cache_->file(), position));
  } else {
    quantizeRows(planned, 0, rowsInMemory, nullptr, 0);
    quantizeRows(planned, rowsInMemory, matrix.rows, &weights_.quantizedFile_, matrix.homeOffset[Tier::kDisk]);
  }
}

// False when the file does not have what its checksum says.
bool WeightLoader::loadCached(const Planned& planned) {
  const Matrix& matrix = planned.matrix();
  const TierBuffer& larger = staging_.bytes() >= packed_.bytes() ? staging_ : packed_;
  const int64_t rowsAtOnce = std::max<int64_t>(1, (larger.bytes() - 2 * kPage) / matrix.rowBytes);
  const int64_t begin = cache_->offset(planned.quantizedIndex);
  uint64_t checksum = 0;
  for (int64_t row = 0; row < matrix.rows; row += rowsAtOnce) {
    const int64_t count = std::min(rowsAtOnce, matrix.rows - row);
    const std::byte* const stored =
        readWindow(cache_->file(), begin + row * matrix.rowBytes, count * matrix.rowBytes, larger.data());
    checksum += rowsChecksum(pool_, stored, row, count, matrix.rowBytes);
    place(planned, row, count, stored);
  }
  return checksum == cache_->checksum(planned.quantizedIndex);
}

// Quantizes rows [begin, end), brings those that live in memory home, and writes all of them to `file`, if there is
// one, from `position` (a page) on. Gives their checksum. Direct I/O writes whole pages: what is left over after a
// chunk waits at the front of the packed rows for the next one.
uint64_t WeightLoader::quantizeRows(const Planned& planned, int64_t begin, int64_t end, const DirectFile* file,
                                    int64_t position) {
  const TensorSource& source = *planned.source;
  const int64_t rowBytes = planned.matrix().rowBytes;
  uint64_t checksum = 0;
  int64_t pending = 0;
  for (int64_t row = begin; row < end; row += rowsPerChunk(source)) {
    const int64_t count = std::min(rowsPerChunk(source), end - row);
    std::byte* const stored = packed_.data() + pending;
    cpu::toFloat(pool_, source.dtype, readRows(source, *planned.file, row, count), count, source.cols,
                 floats_.as<float>());
    cpu::fitInt4(pool_, floats_.as<float>(), count, source.cols, stored);
    place(planned, row, count, stored);
    if (!file) continue;
    checksum += rowsChecksum(pool_, stored, row, count, rowBytes);
    pending += count * rowBytes;
    const int64_t whole = row + count == end ? roundUp(pending, kPage) : roundDown(pending, kPage);
    std::memset(packed_.data() + pending, 0, static_cast<size_t>(std::max<int64_t>(0, whole - pending)));
    file->write(position, whole, packed_.data());
    position += whole;
    pending = std::max<int64_t>(0, pending - whole);
    std::memmove(packed_.data(), packed_.data() + whole, static_cast<size_t>(pending));
  }
  return checksum;
}

// Copies those of rows [row, row + count) that live in memory to their homes. stored: the rows as they are kept.
void WeightLoader::place(const Planned& planned, int64_t row, int64_t count, const std::byte* stored) {
  const Matrix& matrix = planned.matrix();
  int64_t first = 0;
  for (const Tier tier : {Tier::kGpu, Tier::kCpu}) {
    const int64_t begin = std::max(row, first), end = std::min(row + count, first + matrix.tierRows[tier]);
    if (begin < end) {
      std::byte* const home =
          planned.layer->homes[tier].data() + matrix.homeOffset[tier] + (begin - first) * matrix.rowBytes;
      const std::byte* const from = stored + (begin - row) * matrix.rowBytes;
      const int64_t bytes = (end - begin) * matrix.rowBytes;
      if (tier == Tier::kGpu) {
        toDevice(home, from, bytes);
      } else {
        std::memcpy(home, from, static_cast<size_t>(bytes));
      }
    }
    first += matrix.tierRows[tier];
  }
}

}  // namespace flexplan
