#include "engine/run.h"

#include <algorithm>

#include "core/error.h"

namespace flexplan {
namespace {

[[noreturn]] void badSequence(size_t index, const std::string& expected, int64_t got) {
  throw Error(ErrorCode::kBadInput, "expected " + expected + " in sequence " + std::to_string(index) + ", got " +
                                        std::to_string(got) + "; check the prompt's token ids");
}

std::span<const Sequence> checked(const RunContext& context, std::span<const Sequence> sequences) {
  const ModelShape& shape = context.config.model;
  const Matrix* const positions = context.layers.embed.positions;
  for (size_t n = 0; n < sequences.size(); ++n) {
    const Sequence& sequence = sequences[n];
    if (sequence.promptIds.empty()) badSequence(n, "at least 1 prompt token", 0);
    if (sequence.maxTokens < 0) badSequence(n, "a token limit of 0 or more", sequence.maxTokens);
    for (const int32_t id : sequence.promptIds)
      if (id < 0 || id >= shape.vocabSize) badSequence(n, "token ids below " + std::to_string(shape.vocabSize), id);
    if (positions && sequence.reservedRows() + shape.positionOffset > positions->rows)
      badSequence(n, "at most " + std::to_string(positions->rows - shape.positionOffset) + " positions",
                  sequence.reservedRows());
  }
  return sequences;
}

// Tokens of the largest launch. A token of a mixture is a row for each of its experts.
int64_t mostLaunchTokens(const std::vector<Block>& blocks, const EngineConfig& config) {
  return std::max(maxLaunchTokens(blocks, config.prefillChunkTokens), config.model.numActiveExperts);
}

// Prefixes are kept for later items: rows of two prompts.
int64_t mostKeptRows(const std::vector<Block>& blocks, std::span<const Sequence> sequences) {
  if (std::ranges::none_of(blocks, [](const Block& block) { return block.numItems(0) > 1; })) return 0;
  int64_t longest = 0;
  for (const Sequence& sequence : sequences) longest = std::max(longest, sequence.promptTokens());
  return 2 * longest;
}

// Of a sequence whose attention is sparse; 0: none is.
int64_t mostSparsePositions(const EngineConfig& config, std::span<const Sequence> sequences) {
  int64_t most = 0;
  for (const Sequence& sequence : sequences) most = std::max(most, sequence.reservedRows());
  return config.sparseValueFraction < 1 ? most : 0;
}

// What the device reserves for its own, the CPU takes for attention beside it.
MemoryBudget::Charge takeCpuScores(const RunContext& context, int64_t sparsePositions) {
  const ModelShape& shape = context.config.model;
  if (!context.config.attendsOnCpu()) return {};
  return context.budgets[Tier::kCpu]->take(cpu::sparseScoreBytes(shape.numHeads, shape.numKvHeads, sparsePositions),
                                           "scores of sparse attention on the CPU");
}

}  // namespace

Run::Run(const RunContext& context, std::span<const Sequence> sequences, const Cancellation& cancellation)
    : context_(context),
      sequences_(checked(context, sequences)),
      cancellation_(cancellation),
      blocks_(makeBlocks(context.config, sequences)),
      transfer_(context.device, context.io),
      trace_(context.config.trace),
      kvCache_(context.config, sequences, blocks_, transfer_, context.budgets),
      hiddenStates_(context.config, blocks_, transfer_, context.budgets),
      weightStream_(context.weights, transfer_, context.budgets, trace_, context.config.overlap),
      deviceScratch_(context.device.reserve(context.config.model,
                                            {mostLaunchTokens(blocks_, context.config), context.config.gpuBatchSize,
                                             mostSparsePositions(context.config, sequences)})),
      cpuScores_(takeCpuScores(context, mostSparsePositions(context.config, sequences))),
      prefixes_(mostKeptRows(blocks_, sequences), kvCache_, context.device),
      forward_(context.config, context.weights, context.layers, context.pool, transfer_, context.budgets, kvCache_,
               hiddenStates_, prefixes_, clock_, mostLaunchTokens(blocks_, context.config)) {
  result_.sequences.resize(sequences.size());
  for (const Block& block : blocks_) numVisitsPlanned_ += block.numSteps * context.config.model.numScheduleLayers();
}

Run::~Run() {
  stopWeights();
  // A run that ended early leaves operations behind, on memory that is freed next.
  context_.device.finish();
}

RunResult Run::execute(const StepCallback& onStep) {
  try {
    for (const Block& block : blocks_) runBlock(block, onStep);
  } catch (...) {
    fail(std::current_exception());
  }
  stopWeights();
  if (error_) std::rethrow_exception(error_);
  return report();
}

void Run::runBlock(const Block& block, const StepCallback& onStep) {
  const BlockContext context{context_.config,
                             sequences_,
                             context_.device,
                             forward_,
                             kvCache_,
                             hiddenStates_,
                             prefixes_,
                             weightStream_,
                             trace_,
                             cancellation_,
                             onStep,
                             [this](std::exception_ptr error) { fail(error); }};
  weightStream_.beginBlock(block.index, numVisitsDone_, block.numSteps, numVisitsPlanned_);
  startWeights();
  BlockRun blockRun(block, context, numVisitsDone_, result_.sequences);
  {
    const std::lock_guard lock(mutex_);
    blockRun_ = &blockRun;
    if (failed_) blockRun.stop();
  }
  const auto leave = [&] {
    const std::lock_guard lock(mutex_);
    blockRun_ = nullptr;
    const auto seconds = blockRun.secondsSoFar();
    for (const Phase phase : {Phase::kPrefill, Phase::kDecode}) result_.seconds[phase] += seconds[phase];
    ++result_.numBlocks;
    result_.sharedPrefixTokens += blockRun.numSharedTokens();
  };
  try {
    blockRun.run();
  } catch (...) {
    leave();
    throw;
  }
  leave();
  const int64_t numLayers = context_.config.model.numScheduleLayers();
  numVisitsDone_ += blockRun.numStepsDone() * numLayers;
  numVisitsPlanned_ -= (block.numSteps - blockRun.numStepsDone()) * numLayers;
}

void Run::startWeights() {
  if (weightThread_.joinable() || !context_.config.overlap || !weightStream_.loads()) return;
  weightThread_ = std::thread([this] {
    try {
      weightStream_.loadAll();
    } catch (...) {
      fail(std::current_exception());
    }
  });
}

void Run::stopWeights() {
  weightStream_.stop();
  if (weightThread_.joinable()) weightThread_.join();
}

// The first error counts; Stopped is none, it is how the other tasks give up.
void Run::fail(std::exception_ptr error) {
  const std::lock_guard lock(mutex_);
  try {
    std::rethrow_exception(error);
  } catch (const Stopped&) {
  } catch (...) {
    if (!failed_ && !error_) error_ = std::current_exception();
  }
  failed_ = true;
  weightStream_.stop();
  if (blockRun_) blockRun_->stop();
}

RunResult Run::report() {
  for (const Phase phase : {Phase::kPrefill, Phase::kDecode}) {
    result_.computeSeconds[phase] = clock_.computeSeconds[phase];
    result_.cpuAttentionSeconds[phase] = clock_.cpuAttentionSeconds[phase];
    for (const Link link : {Link::kCpuToGpu, Link::kGpuToCpu, Link::kDiskToCpu, Link::kCpuToDisk}) {
      result_.linkSeconds[phase][link] = transfer_.meter().seconds(phase, link);
      result_.linkBytes[phase][link] = transfer_.meter().bytes(phase, link);
    }
  }
  for (const Tier tier : {Tier::kGpu, Tier::kCpu, Tier::kDisk}) {
    result_.peakBytes[tier] = context_.budgets[tier]->peakBytes();
    result_.kvCacheBytes[tier] = kvCache_.reservedBytes()[tier];
    result_.activationBytes[tier] = hiddenStates_.reservedBytes()[tier];
  }
  result_.trace = trace_.take();
  return std::move(result_);
}

}  // namespace flexplan
