// Small models with random weights, and random policies for them: what the engine's tests run.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/engine_types.h"
#include "test/check.h"

namespace flexplan::test {

// A folder for the test's files, removed with all that is in it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

enum class Family { kOpt, kPostNormOpt, kLlama, kMixtral };

// Shape and tensors of a model whose weights are written to `path`. Everything on the cpu tier.
struct TinyModel {
  TinyModel(Family family, DataType dtype, const std::string& path);
  ModelShape shape{};
  std::vector<TensorSource> tensors;
};

// All in memory, one sequence at a time, without overlap: the run that others are compared with.
EngineConfig plainConfig(const TinyModel& model, const TemporaryFolder& folder);

// Every family, fp16, bf16 and fp32 among them, with 16 and 4 bits of weights and of KV.
struct TinyCase {
  const TinyModel& model;
  EngineConfig base;  // plainConfig with these bits
  std::string name;   // "family 2, 4 and 16 bits"
};
void forEachTinyCase(const TemporaryFolder& folder, const std::function<void(const TinyCase&)>& visit);

// A random device, placement and batch shape; bits as in `base`.
EngineConfig randomConfig(const EngineConfig& base, Random& random);

// Prompts of different lengths with different limits, some sampled, some scored.
std::vector<Sequence> someSequences(const ModelShape& shape, Random& random, int count);

}  // namespace flexplan::test
