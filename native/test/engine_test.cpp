// The engine as a whole: results do not depend on placement, tasks keep their order, errors and cancellation end a run
// cleanly.
#include "engine/engine.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <thread>
#include <tuple>

#include "core/error.h"
#include "engine/progress.h"
#include "test/async_device.h"
#include "test/check.h"
#include "test/tiny_model.h"

namespace flexplan::test {
namespace {

const StepCallback kIgnore = [](const StepEvent&) {};

// Everything that must not depend on the policy.
bool sameResults(const RunResult& a, const RunResult& b) {
  return std::ranges::equal(a.sequences, b.sequences, [](const SequenceResult& x, const SequenceResult& y) {
    return std::tie(x.tokenIds, x.finishReason, x.logits, x.promptLogProbs) ==
           std::tie(y.tokenIds, y.finishReason, y.logits, y.promptLogProbs);
  });
}

RunResult runOnce(const EngineConfig& config, const std::vector<Sequence>& sequences) {
  Engine engine(config);
  engine.open();
  return engine.run(sequences, kIgnore, Cancellation(sequences.size()));
}

using Key = std::tuple<int64_t, int64_t, int64_t, int64_t>;  // block, step, layer, batch

struct Span {
  double start, end;
};

// What each task may only begin after, looked up in the trace. Events that did nothing are not there and hold nobody
// up.
class TraceOrder {
 public:
  TraceOrder(const RunResult& result, int64_t numGpuBatches) : numGpuBatches_(numGpuBatches) {
    for (const TraceEvent& event : result.trace)
      spans_[event.task][{event.block, event.step, event.layer, event.gpuBatch}] = {event.startSeconds,
                                                                                    event.endSeconds};
  }
  int numPairs() const { return numPairs_; }
  int numViolations() const { return numViolations_; }

  void check() {
    for (const auto& [key, span] : spans_[Task::kCompute]) {
      const auto& [block, step, layer, batch] = key;
      after(span, Task::kLoadWeights, {block, step, layer, 0});
      after(span, Task::kLoadKvCache, key);
      after(span, Task::kLoadActivations, key);
    }
    for (const auto& [key, span] : spans_[Task::kStoreKvCache]) after(span, Task::kCompute, key);
    for (const auto& [key, span] : spans_[Task::kStoreActivations]) after(span, Task::kCompute, key);
    for (const auto& [key, span] : spans_[Task::kLoadActivations]) {
      const auto& [block, step, layer, batch] = key;
      after(span, Task::kStoreActivations, {block, step, layer - 1, batch});
    }
    for (const auto& [key, span] : spans_[Task::kLoadKvCache]) {
      const auto& [block, step, layer, batch] = key;
      after(span, Task::kStoreKvCache, {block, step - 1, layer, batch});
    }
    // Two weight buffers: a layer is loaded when the one before the last is done with.
    for (const auto& [key, span] : spans_[Task::kLoadWeights]) {
      const auto& [block, step, layer, batch] = key;
      for (int64_t k = 0; k < numGpuBatches_; ++k) after(span, Task::kCompute, {block, step, layer - 2, k});
    }
  }

 private:
  void after(const Span& span, Task task, const Key& key) {
    const auto found = spans_[task].find(key);
    if (found == spans_[task].end()) return;
    ++numPairs_;
    if (span.start < found->second.end) ++numViolations_;
  }

  const int64_t numGpuBatches_;
  std::map<Task, std::map<Key, Span>> spans_;
  int numPairs_ = 0, numViolations_ = 0;
};

void testPlacements(Checks& check, const TemporaryFolder& folder, int numPolicies) {
  Random random(11);
  int numPairs = 0, numOverlapped = 0, numEmulated = 0, numRefilled = 0;
  forEachTinyCase(folder, [&](const TinyCase& tiny) {
    const auto sequences = someSequences(tiny.model.shape, random, 11);
    const RunResult expected = runOnce(tiny.base, sequences);
    for (int n = 0; n < numPolicies; ++n) {
      const EngineConfig config = randomConfig(tiny.base, random);
      const RunResult result = runOnce(config, sequences);
      check.that(sameResults(result, expected), tiny.name + ": results of policy " + std::to_string(n));
      TraceOrder order(result, config.numGpuBatches);
      order.check();
      check.that(order.numViolations() == 0,
                 tiny.name + ": order of tasks: " + std::to_string(order.numViolations()) + " violations");
      numPairs += order.numPairs();
      numOverlapped += config.overlap;
      numEmulated += config.device == DeviceKind::kEmulated;
      numRefilled += config.schedule == Schedule::kDiagonal && config.blockSize() < 11;
    }
  });
  check.that(numPairs > 1000 * numPolicies, "order of tasks: enough pairs, " + std::to_string(numPairs));
  check.that(numOverlapped > 4 * numPolicies && numEmulated > 4 * numPolicies && numRefilled > 3 * numPolicies,
             "policies: enough with overlap, enough emulated, enough that refill");
}

// Makes an engine's device, and notes it in `made`.
auto makesAsyncDevice(AsyncDevice*& made, uint64_t seed, bool spoilsRows) {
  return [&made, seed, spoilsRows](const EngineConfig& config, ThreadPool&, Budgets& budgets) {
    auto pool = std::make_unique<ThreadPool>(1);
    auto inner = makeDevice(config.device, *pool, budgets, config.cpuToGpuRate, config.gpuToCpuRate);
    auto device = std::make_unique<AsyncDevice>(std::move(pool), std::move(inner), seed);
    if (spoilsRows) device->spoilRowsBeforeWindows();
    made = device.get();
    return device;
  };
}

// A device that lags behind gives the same results: nothing of it is used too early.
void testAsyncDevice(Checks& check, const TemporaryFolder& folder, int numPolicies) {
  Random random(12);
  int64_t numWaits = 0;
  for (const Family family : {Family::kOpt, Family::kLlama, Family::kMixtral}) {
    const std::string name = "async family " + std::to_string(static_cast<int>(family));
    const TinyModel model(family, DataType::kFloat16, folder.file(name));
    const EngineConfig base = plainConfig(model, folder);
    const auto sequences = someSequences(model.shape, random, 9);
    const RunResult expected = runOnce(base, sequences);
    for (int n = 0; n < numPolicies; ++n) {
      const EngineConfig config = randomConfig(base, random);
      AsyncDevice* device = nullptr;
      Engine engine(config, makesAsyncDevice(device, random.bits(), false));
      engine.open();
      Cancellation early(sequences.size());
      engine.run(
          sequences, [&](const StepEvent& event) { event.step == 1 ? early.cancel() : void(); }, early);
      const RunResult result = engine.run(sequences, kIgnore, Cancellation(sequences.size()));
      check.that(sameResults(result, expected), name + ": results of policy " + std::to_string(n));
      numWaits += device->numWaits();
    }
  }
  check.that(numWaits > 100 * numPolicies, "async: the device did lag behind, " + std::to_string(numWaits));
}

// Prompts of a step that begin alike are computed once, wherever their KV rows live.
void testSharedPrefixes(Checks& check, const TemporaryFolder& folder, int numPolicies) {
  Random random(13);
  for (const Family family : {Family::kOpt, Family::kMixtral}) {
    const std::string name = "shared prefix, family " + std::to_string(static_cast<int>(family));
    const TinyModel model(family, DataType::kFloat16, folder.file(name));
    auto sequences = someSequences(model.shape, random, 10);
    std::vector<int32_t> prefix;
    for (int t = 0; t < 24; ++t) prefix.push_back(static_cast<int32_t>(random.below(model.shape.vocabSize)));
    // All of it, a part of it, and nothing of it in turn; one prompt is the prefix itself, one a repetition.
    for (size_t n = 0; n < sequences.size(); ++n)
      sequences[n].promptIds.insert(sequences[n].promptIds.begin(), prefix.begin(),
                                    prefix.end() - static_cast<int64_t>(n % 3) * 6);
    sequences[1].promptIds = prefix;
    sequences[3].promptIds = sequences[2].promptIds;
    for (const int kvCacheBits : {16, 4}) {
      EngineConfig base = plainConfig(model, folder);
      base.kvCacheBits = kvCacheBits;
      const RunResult expected = runOnce(base, sequences);
      check.that(expected.sharedPrefixTokens == 0, name + ": a sequence alone shares nothing");
      int64_t numShared = 0;
      for (int n = 0; n < numPolicies; ++n) {
        EngineConfig config = randomConfig(base, random);
        config.prefillChunkTokens += 100;
        const RunResult result = runOnce(config, sequences);
        check.that(sameResults(result, expected), name + ": results of policy " + std::to_string(n));
        numShared += result.sharedPrefixTokens;
      }
      check.that(numShared > 4 * numPolicies, name + ": enough was shared, " + std::to_string(numShared));
    }
  }
}

// Prompts of some kinds in turn.
std::vector<Sequence> promptsOfKinds(const std::vector<std::vector<int32_t>>& kinds, int64_t count, int64_t ownTokens) {
  std::vector<Sequence> sequences(static_cast<size_t>(count));
  for (size_t n = 0; n < sequences.size(); ++n) {
    Sequence& sequence = sequences[n];
    sequence.promptIds = kinds[n % kinds.size()];
    for (int64_t t = 0; t < ownTokens; ++t) sequence.promptIds.push_back(static_cast<int32_t>(n + 1));
    sequence.maxTokens = sequence.logitsSteps = 4;
  }
  return sequences;
}

// What all of a kind share is computed by the first of them in the step, as far as it can be kept: there is room for
// the rows of two prompts.
void testPrefixesOfEarlierItems(Checks& check, const TemporaryFolder& folder) {
  Random random(15);
  const TinyModel model(Family::kLlama, DataType::kFloat16, folder.file("kept-prefixes"));
  constexpr int64_t kShared = 20, kOwn = 5, kTokens = kShared + kOwn, kPrompts = 8;
  std::vector<std::vector<int32_t>> kinds(4);
  for (auto& ids : kinds)
    for (int64_t t = 0; t < kShared; ++t) ids.push_back(static_cast<int32_t>(random.below(model.shape.vocabSize)));
  const auto four = promptsOfKinds(kinds, kPrompts, kOwn);
  kinds.resize(2);
  const auto two = promptsOfKinds(kinds, kPrompts, kOwn);
  const EngineConfig one = plainConfig(model, folder);
  EngineConfig config = one;
  config.gpuBatchSize = 2;
  config.numGpuBatches = kPrompts / 2;
  config.kvTiers.assign(kPrompts, config.kvTiers.front());
  config.activationTiers.assign(kPrompts, config.activationTiers.front());
  config.cpuAttention.assign(kPrompts, 0);
  struct Case {
    const std::vector<Sequence>& sequences;
    Schedule schedule;
    int64_t chunkTokens, numShared;
  };
  // In launches of one prompt half of the diagonal's enter in a second step.
  for (const auto& [sequences, schedule, chunkTokens, numShared] :
       {Case{two, Schedule::kZigzag, 2 * kTokens, 6}, Case{two, Schedule::kZigzag, kTokens, 6},
        Case{two, Schedule::kDiagonal, 2 * kTokens, 6}, Case{two, Schedule::kDiagonal, kTokens, 4},
        Case{four, Schedule::kZigzag, kTokens, 2}, Case{four, Schedule::kDiagonal, kTokens, 0}}) {
    config.schedule = schedule;
    config.prefillChunkTokens = chunkTokens;
    const RunResult result = runOnce(config, sequences);
    const std::string what = "kept prefixes, " + std::to_string(numShared) + " to share";
    check.that(sameResults(result, runOnce(one, sequences)), what + ": results");
    check.that(result.sharedPrefixTokens == numShared * kShared,
               what + ": shared " + std::to_string(result.sharedPrefixTokens));
  }
}

// Sparse attention does not depend on placement, batch shape or where attention runs, either.
void testSparseValues(Checks& check, const TemporaryFolder& folder, int numPolicies) {
  Random random(14);
  for (const Family family : {Family::kOpt, Family::kLlama}) {
    const std::string name = "sparse values, family " + std::to_string(static_cast<int>(family));
    const TinyModel model(family, DataType::kFloat16, folder.file(name));
    const auto sequences = someSequences(model.shape, random, 8);
    for (const int kvCacheBits : {16, 4}) {
      EngineConfig base = plainConfig(model, folder);
      base.kvCacheBits = kvCacheBits;
      const RunResult dense = runOnce(base, sequences);
      base.sparseValueFraction = 0.25;
      const RunResult expected = runOnce(base, sequences);
      check.that(!sameResults(expected, dense), name + ": not what dense attention gives");
      for (int n = 0; n < numPolicies; ++n)
        check.that(sameResults(runOnce(randomConfig(base, random), sequences), expected),
                   name + ": results of policy " + std::to_string(n));
    }
  }
}

// A GPU device, everything on disk: every kind of traffic there is.
EngineConfig everythingOnDisk(const TinyModel& model, const TemporaryFolder& folder, bool overlap) {
  EngineConfig config = plainConfig(model, folder);
  config.device = DeviceKind::kEmulated;
  config.overlap = overlap;
  config.gpuBatchSize = config.numGpuBatches = 2;
  config.kvTiers = config.activationTiers = {Tier::kDisk, Tier::kDisk, Tier::kDisk, Tier::kDisk};
  config.cpuAttention = {0, 1, 0, 1};
  for (TensorSource& tensor : config.tensors)
    if (tensor.cols > 1) tensor.cpuRows = 0;
  return config;
}

std::string errorOf(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.codeName();
  }
  return "";
}

void testErrors(Checks& check, const TemporaryFolder& folder) {
  Random random(5);
  for (const bool overlap : {false, true}) {
    const std::string path = folder.file(overlap ? "cut-overlap" : "cut");
    const TinyModel model(Family::kOpt, DataType::kFloat32, path);
    const auto sequences = someSequences(model.shape, random, 6);
    Engine engine(everythingOnDisk(model, folder, overlap));
    engine.open();
    const Cancellation never(sequences.size());
    const RunResult before = engine.run(sequences, kIgnore, never);
    // The file loses its end between loading and running: the head can no longer be read.
    check.that(truncate(path.c_str(), model.tensors.back().byteOffset - 3000) == 0, "errors: file is cut");
    check.that(errorOf([&] { engine.run(sequences, kIgnore, never); }) == "bad-input",
               "errors: a truncated file ends the run");
    check.that(errorOf([&] { engine.run(sequences, kIgnore, never); }) == "bad-input", "errors: and the next one");
    check.that(errorOf([&] { Engine(everythingOnDisk(model, folder, overlap)).open(); }) == "bad-input",
               "errors: nor is it loaded");
    check.that(!before.sequences.empty(), "errors: the run before was fine");
    check.that(errorOf([&] {
                 engine.run({}, [](const StepEvent&) { throw Error(ErrorCode::kEngine, "never"); }, never);
               }).empty(),
               "errors: an empty run is one");
  }
  const TinyModel model(Family::kLlama, DataType::kFloat16, folder.file("errors"));
  const auto sequences = someSequences(model.shape, random, 4);
  EngineConfig config = plainConfig(model, folder);
  const RunResult enough = runOnce(config, sequences);
  config.gpuBatchSize = 4;
  config.kvTiers = config.activationTiers = std::vector<Tier>(4, Tier::kCpu);
  config.cpuAttention.resize(4);
  const int64_t whole = runOnce(config, sequences).peakBytes[Tier::kCpu];
  config.prefillChunkTokens = 4;
  const RunResult inPieces = runOnce(config, sequences);
  check.that(sameResults(inPieces, enough) && inPieces.peakBytes[Tier::kCpu] < whole,
             "chunks: prompts in pieces take a smaller workspace");
  config = plainConfig(model, folder);
  config.capacityBytes[Tier::kCpu] = enough.peakBytes[Tier::kCpu];
  check.that(sameResults(runOnce(config, sequences), enough), "caps: the peak is enough");
  --config.capacityBytes[Tier::kCpu];
  check.that(errorOf([&] { runOnce(config, sequences); }) == "out-of-memory", "caps: a byte less is not");
  config = everythingOnDisk(model, folder, true);
  config.capacityBytes[Tier::kDisk] = 1000;
  check.that(errorOf([&] { runOnce(config, sequences); }) == "no-disk-space", "caps: disk");
  config = plainConfig(model, folder);
  config.tensors.erase(config.tensors.begin() + 3);
  check.that(errorOf([&] { runOnce(config, sequences); }) == "bad-input", "errors: a tensor is missing");
  config = plainConfig(model, folder);
  config.device = DeviceKind::kCuda;
  if (const std::string code = errorOf([&] { runOnce(config, sequences); }); !code.empty())
    check.that(code == "no-device", "errors: no CUDA in this build, or no GPU here");
  config.sparseValueFraction = 0.5;
  check.that(errorOf([&] { Engine engine(config); }) == "unsupported", "errors: sparse attention on a CUDA device");
  config = plainConfig(model, folder);
  for (const double fraction : {0.0, -0.1, 1.1, std::nan("")}) {
    config.sparseValueFraction = fraction;
    check.that(errorOf([&] { Engine engine(config); }) == "bad-input", "errors: a sparseValueFraction that is none");
  }
  auto wrong = sequences;
  wrong[1].promptIds[0] = static_cast<int32_t>(model.shape.vocabSize);
  check.that(errorOf([&] { runOnce(plainConfig(model, folder), wrong); }) == "bad-input", "errors: token out of range");
}

void testCancel(Checks& check, const TemporaryFolder& folder) {
  const TinyModel model(Family::kOpt, DataType::kFloat32, folder.file("cancel"));
  Random random(6);
  std::vector<Sequence> sequences = someSequences(model.shape, random, 6);
  for (Sequence& sequence : sequences) {
    sequence.maxTokens = 30;
    sequence.stopIds.clear();
  }
  for (const bool overlap : {false, true}) {
    Engine engine(everythingOnDisk(model, folder, overlap));
    engine.open();
    const Cancellation never(sequences.size());
    const RunResult all = engine.run(sequences, kIgnore, never);
    Cancellation some(sequences.size()), run(sequences.size()), early(sequences.size());
    const RunResult one = engine.run(
        sequences,
        [&](const StepEvent& event) {
          if (event.block == 0 && event.step == 3) some.cancelSequence(1);
          if (event.block == 0 && event.step == 4) some.cancelSequence(5);
        },
        some);
    check.that(one.sequences[1].finishReason == FinishReason::kCancelled && one.sequences[1].tokenIds.size() == 5,
               "cancel: one sequence, at its next step");
    check.that(one.sequences[5].finishReason == FinishReason::kCancelled && one.sequences[5].tokenIds.empty(),
               "cancel: before its block");
    check.that(one.sequences[0].tokenIds == all.sequences[0].tokenIds &&
                   one.sequences[4].tokenIds == all.sequences[4].tokenIds,
               "cancel: the others do not notice");
    const RunResult none = engine.run(
        sequences,
        [&](const StepEvent& event) {
          if (event.step == 2) run.cancel();
        },
        run);
    check.that(none.sequences[0].tokenIds.size() == 3 && none.sequences[0].finishReason == FinishReason::kCancelled,
               "cancel: the run keeps what there is");
    check.that(none.sequences[5].tokenIds.empty() && none.numBlocks == 1, "cancel: no block after");
    early.cancel();
    check.that(engine.run(sequences, kIgnore, early).sequences[0].tokenIds.empty(), "cancel: before the run begins");
    check.that(sameResults(engine.run(sequences, kIgnore, never), all), "cancel: the engine goes on");
  }
}

void testDiagonal(Checks& check, const TemporaryFolder& folder) {
  const TinyModel model(Family::kLlama, DataType::kFloat16, folder.file("diagonal"));
  Random random(14);
  auto sequences = someSequences(model.shape, random, 23);
  for (Sequence& sequence : sequences) {
    sequence.maxTokens = random.below(100);
    sequence.stopIds.clear();
  }
  for (const bool overlap : {false, true}) {
    EngineConfig config = everythingOnDisk(model, folder, overlap);
    Engine zigzag(config);
    config.schedule = Schedule::kDiagonal;
    Engine diagonal(config);
    zigzag.open();
    diagonal.open();
    const Cancellation never(sequences.size());
    int64_t zigzagSteps = 0, steps = 0;
    const RunResult expected = zigzag.run(sequences, [&](const StepEvent&) { ++zigzagSteps; }, never);
    const RunResult result = diagonal.run(sequences, [&](const StepEvent&) { ++steps; }, never);
    check.that(sameResults(result, expected), "diagonal: same results");
    check.that(result.numBlocks == 1, "diagonal: one block");
    check.that(steps < zigzagSteps, "diagonal: fewer steps, " + std::to_string(steps));
    for (const Tier tier : {Tier::kGpu, Tier::kCpu, Tier::kDisk})
      check.that(result.kvCacheBytes[tier] <= expected.kvCacheBytes[tier] &&
                     result.peakBytes[tier] <= expected.peakBytes[tier],
                 "diagonal: no more memory");
    const auto bytes = [](const RunResult& run) {
      return run.linkBytes[Phase::kPrefill][Link::kDiskToCpu] + run.linkBytes[Phase::kDecode][Link::kDiskToCpu];
    };
    check.that(bytes(result) < bytes(expected), "diagonal: fewer loads of the weights");

    Cancellation some(sequences.size()), early(sequences.size());
    std::vector<int32_t> cancelled;
    const RunResult rest = diagonal.run(
        sequences,
        [&](const StepEvent& event) {
          if (event.step == 1) {
            some.cancelSequence(22);
            some.cancelSequence(4);
          }
          for (const auto& [sequence, reason] : event.finished)
            if (reason == FinishReason::kCancelled) cancelled.push_back(sequence);
        },
        some);
    check.that(rest.sequences[22].tokenIds.empty() && std::ranges::find(cancelled, 22) != cancelled.end(),
               "diagonal: a waiting sequence that was cancelled never enters, and that is said");
    check.that(rest.sequences[21].tokenIds == expected.sequences[21].tokenIds, "diagonal: the others do not notice");
    const RunResult none =
        diagonal.run(sequences, [&](const StepEvent& event) { event.step == 6 ? early.cancel() : void(); }, early);
    check.that(none.sequences[22].tokenIds.empty() && none.sequences[22].finishReason == FinishReason::kCancelled,
               "diagonal: nobody enters a run that was cancelled");
    check.that(sameResults(diagonal.run(sequences, kIgnore, never), expected), "diagonal: the engine goes on");
  }
}

std::vector<Sequence> longSequences(const ModelShape& shape, Random& random, int count) {
  auto sequences = someSequences(shape, random, count);
  for (Sequence& sequence : sequences) {
    for (int64_t t = random.below(150); t > 0; --t)
      sequence.promptIds.push_back(static_cast<int32_t>(random.below(shape.vocabSize)));
    sequence.maxTokens = random.below(12);
    sequence.stopIds.clear();
  }
  return sequences;
}

// Sequences of several pages, in every place, by every schedule.
void testPages(Checks& check, const TemporaryFolder& folder, int numPolicies) {
  const TinyModel model(Family::kLlama, DataType::kFloat16, folder.file("pages"));
  Random random(15);
  const auto sequences = longSequences(model.shape, random, 14);
  for (const int kvCacheBits : {16, 4}) {
    EngineConfig base = plainConfig(model, folder);
    base.kvCacheBits = kvCacheBits;
    const RunResult expected = runOnce(base, sequences);
    for (int n = 0; n < numPolicies / 2; ++n) {
      EngineConfig config = randomConfig(base, random);
      config.trace = false;
      for (const Schedule schedule : {Schedule::kZigzag, Schedule::kDiagonal}) {
        config.schedule = schedule;
        check.that(sameResults(runOnce(config, sequences), expected),
                   "pages: results of policy " + std::to_string(n) + " with " + std::to_string(kvCacheBits) + " bits");
      }
    }
  }
}

// Of a window only the rows that attention reads are loaded. What lies before them, NaN here, reaches nobody.
void testWindow(Checks& check, const TemporaryFolder& folder, int numPolicies) {
  Random random(16);
  int64_t numSpoiled = 0;
  for (const auto& [window, kvCacheBits] : {std::pair{9, 16}, {9, 4}, {1, 16}, {70, 16}}) {
    const std::string name = "window of " + std::to_string(window) + ", " + std::to_string(kvCacheBits) + " bits";
    TinyModel model(Family::kMixtral, DataType::kFloat16, folder.file("window"));
    model.shape.slidingWindow = window;
    const auto sequences = longSequences(model.shape, random, 11);
    EngineConfig base = plainConfig(model, folder);
    base.kvCacheBits = kvCacheBits;
    const RunResult expected = runOnce(base, sequences);
    for (int n = 0; n < numPolicies; ++n) {
      const EngineConfig config = randomConfig(base, random);
      AsyncDevice* device = nullptr;
      Engine engine(config, makesAsyncDevice(device, random.bits(), true));
      engine.open();
      const RunResult result = engine.run(sequences, kIgnore, Cancellation(sequences.size()));
      check.that(sameResults(result, expected), name + ": results of policy " + std::to_string(n));
      numSpoiled += device->numSpoiledRows();
    }
  }
  check.that(numSpoiled > 5000 * numPolicies, "windows: enough rows were spoiled, " + std::to_string(numSpoiled));
}

// Pieces of any size, shared by threads.
void testDeviceCopy(Checks& check) {
  Random random(17);
  for (int threads = 1; threads <= 4; ++threads) {
    ThreadPool pool(threads);
    Budgets budgets;
    for (const Tier tier : {Tier::kGpu, Tier::kCpu, Tier::kDisk})
      budgets[tier] = std::make_unique<MemoryBudget>(tier, int64_t{1} << 40);
    const auto device = makeDevice(DeviceKind::kCpu, pool, budgets, 1, 1);
    std::vector<std::byte> from(3 << 20), to(from.size());
    for (std::byte& byte : from) byte = static_cast<std::byte>(random.below(256));
    std::vector<CopyPiece> pieces;
    for (const auto& [begin, end] : {std::pair{0, 1}, {1, 1}, {1, 300'001}, {300'001, 2'900'000}, {2'900'000, 3 << 20}})
      pieces.insert(pieces.begin(), {to.data() + begin, from.data() + begin, end - begin});
    device->copy(pieces);
    check.that(to == from, "copy inside a device of " + std::to_string(threads) + " threads");
  }
}

void testProgress(Checks& check) {
  Progress progress;
  int woken = 0;
  std::thread waiter([&] {
    for (int64_t n = 1; n <= 20000; ++n) {
      progress.waitFor(n);
      ++woken;
    }
  });
  for (int64_t n = 1; n <= 20000; ++n) {
    progress.publish(n);
    if (n % 1000 == 0) std::this_thread::yield();
  }
  waiter.join();
  check.that(woken == 20000, "progress: no wake-up is lost");
  bool stopped = false;
  std::thread stuck([&] {
    try {
      progress.waitFor(20001);
    } catch (const Stopped&) {
      stopped = true;
    }
  });
  progress.stop();
  stuck.join();
  check.that(stopped, "progress: stop ends a wait");
}

// Run beside each other where a build is slow (engine.cmake).
struct Part {
  const char* name;
  void (*test)(Checks&, const TemporaryFolder&, int numPolicies);
};
constexpr std::array kParts{
    Part{"placements", testPlacements},
    Part{"prefixes",
         [](Checks& check, const TemporaryFolder& folder, int numPolicies) {
           testSharedPrefixes(check, folder, numPolicies);
           testPrefixesOfEarlierItems(check, folder);
         }},
    Part{"lagging", testAsyncDevice},
    Part{"sparse", testSparseValues},
    Part{"pages", testPages},
    Part{"window", testWindow},
    Part{"ends",
         [](Checks& check, const TemporaryFolder& folder, int) {
           testProgress(check);
           testDeviceCopy(check);
           testErrors(check, folder);
           testCancel(check, folder);
         }},
    Part{"diagonal", [](Checks& check, const TemporaryFolder& folder, int) { testDiagonal(check, folder); }},
};

}  // namespace
}  // namespace flexplan::test

// engine_test [policies [part]]: random policies for each model and number of bits; all of kParts, or one.
int main(int argc, char** argv) {
  using namespace flexplan::test;
  const int numPolicies = argc > 1 ? std::stoi(argv[1]) : 10;
  const std::string wanted = argc > 2 ? argv[2] : "";
  Checks check;
  for (const Part& part : kParts) {
    const TemporaryFolder folder;
    if (wanted.empty() || wanted == part.name) part.test(check, folder, numPolicies);
  }
  return check.finish();
}
