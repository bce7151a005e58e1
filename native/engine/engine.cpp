#include "engine/engine.h"

#include "core/error.h"

namespace flexplan {
namespace {

[[noreturn]] void badConfig(const std::string& expected, int64_t got) {
  throw Error(ErrorCode::kBadInput, "expected " + expected + ", got " + std::to_string(got) +
                                        "; check the policy and the model's configuration");
}

void checkModel(const ModelShape& model) {
  for (const int64_t size : {model.numLayers, model.hiddenSize, model.ffnSize, model.numHeads, model.numKvHeads,
                             model.headDim, model.vocabSize, model.embeddingSize})
    if (size <= 0) badConfig("model dimensions above 0", size);
  if (model.numHeads % model.numKvHeads != 0) badConfig("a number of heads that the KV heads divide", model.numHeads);
  if (!model.learnedPositions && static_cast<int64_t>(model.inverseFrequencies.size()) * 2 != model.headDim)
    badConfig("half as many rotary frequencies as the head's size",
              static_cast<int64_t>(model.inverseFrequencies.size()));
  if (model.numActiveExperts < 0 || model.numActiveExperts > model.numExperts)
    badConfig("at most " + std::to_string(model.numExperts) + " active experts", model.numActiveExperts);
  if (model.numExperts > 0 && model.numActiveExperts == 0) badConfig("active experts", 0);
}

void checkSlots(const EngineConfig& config, const std::vector<Tier>& tiers) {
  if (static_cast<int64_t>(tiers.size()) != config.blockSize())
    badConfig("one tier per slot of " + std::to_string(config.blockSize()), static_cast<int64_t>(tiers.size()));
  for (const Tier tier : tiers)
    if (config.device == DeviceKind::kCpu && tier == Tier::kGpu)
      badConfig("slots on cpu (1) or disk (2) of a cpu device", 0);
}

void checkSparseValues(const EngineConfig& config) {
  const double fraction = config.sparseValueFraction;
  if (!(fraction > 0 && fraction <= 1))
    throw Error(ErrorCode::kBadInput, "expected a sparseValueFraction above 0 and at most 1, got " +
                                          std::to_string(fraction) + "; correct the policy");
  if (fraction < 1 && config.device == DeviceKind::kCuda)
    throw Error(ErrorCode::kUnsupported, "expected sparseValueFraction 1 on a cuda device, got " +
                                             std::to_string(fraction) +
                                             "; leave it out of the policy, or run on the cpu or emulated device");
}

const EngineConfig& checked(const EngineConfig& config) {
  checkModel(config.model);
  if (config.gpuBatchSize <= 0 || config.numGpuBatches <= 0)
    badConfig("a batch shape above 0", std::min(config.gpuBatchSize, config.numGpuBatches));
  if (config.prefillChunkTokens <= 0) badConfig("prompt tokens in a prefill chunk above 0", config.prefillChunkTokens);
  checkSlots(config, config.kvTiers);
  checkSlots(config, config.activationTiers);
  if (static_cast<int64_t>(config.cpuAttention.size()) != config.blockSize())
    badConfig("one attention flag per slot", static_cast<int64_t>(config.cpuAttention.size()));
  for (const int bits : {config.weightBits, config.kvCacheBits})
    if (bits != 16 && bits != 4) badConfig("16 or 4 bits", bits);
  checkSparseValues(config);
  return config;
}

Budgets makeBudgets(const PerTier<int64_t>& capacityBytes) {
  Budgets budgets;
  for (const Tier tier : {Tier::kGpu, Tier::kCpu, Tier::kDisk})
    budgets[tier] = std::make_unique<MemoryBudget>(tier, capacityBytes[tier]);
  return budgets;
}

}  // namespace

struct Engine::Loaded {
  Loaded(const EngineConfig& config, const MakeDevice& makeOther)
      : budgets(makeBudgets(config.capacityBytes)),
        pool(config.numThreads),
        device(makeOther ? makeOther(config, pool, budgets)
                         : makeDevice(config.device, pool, budgets, config.cpuToGpuRate, config.gpuToCpuRate)),
        weights(config.model, config.tensors,
                {config.weightBits, config.spillDirectory, config.quantizationCache}, *device, budgets, pool),
        layers(config.model, weights),
        context{config, weights, layers, pool, *device, io, budgets} {}

  Budgets budgets;
  ThreadPool pool;
  IoPool io;
  std::unique_ptr<Device> device;
  Weights weights;
  ModelLayers layers;
  RunContext context;
};

Engine::Engine(EngineConfig config, MakeDevice makeDevice)
    : config_(std::move(config)), makeDevice_(std::move(makeDevice)) {
  checked(config_);
}

Engine::~Engine() = default;

PerTier<int64_t> Engine::open() {
  if (!loaded_) loaded_ = std::make_unique<Loaded>(config_, makeDevice_);
  return loaded_->weights.placedBytes();
}

RunResult Engine::run(std::span<const Sequence> sequences, const StepCallback& onStep,
                      const Cancellation& cancellation) {
  if (!loaded_)
    throw Error(ErrorCode::kEngine, "expected an open engine, got one that is not; call open() before run()");
  return Run(loaded_->context, sequences, cancellation).execute(onStep);
}

}  // namespace flexplan
