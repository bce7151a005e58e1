#include "binding/convert.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"

namespace flexplan {
namespace {

[[noreturn]] void badField(const char* name, const char* expected) {
  throw Error(ErrorCode::kBadInput, std::string("expected ") + expected + " in field " + name +
                                        ", got something else; this is a fault of the caller of the native engine");
}

template <typename Array>
Array typedArrayField(const Napi::Object& object, const char* name, napi_typedarray_type type, const char* expected) {
  const Napi::Value value = object.Get(name);
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != type) badField(name, expected);
  return value.As<Array>();
}

Napi::Array arrayField(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsArray()) badField(name, "an array");
  return value.As<Napi::Array>();
}

Napi::Object element(const Napi::Array& array, uint32_t index, const char* what) {
  const Napi::Value value = array.Get(index);
  if (!value.IsObject()) badField(what, "objects");
  return value.As<Napi::Object>();
}

std::vector<int32_t> idsField(const Napi::Object& object, const char* name) {
  const auto ids = typedArrayField<Napi::Int32Array>(object, name, napi_int32_array, "an Int32Array");
  return {ids.Data(), ids.Data() + ids.ElementLength()};
}

std::vector<uint8_t> bytesField(const Napi::Object& object, const char* name) {
  const auto bytes = typedArrayField<Napi::Uint8Array>(object, name, napi_uint8_array, "a Uint8Array");
  return {bytes.Data(), bytes.Data() + bytes.ElementLength()};
}

std::vector<Tier> tiersField(const Napi::Object& object, const char* name) {
  std::vector<Tier> tiers;
  for (const uint8_t tier : bytesField(object, name)) {
    if (tier >= kNumTiers) badField(name, "tiers 0 to 2");
    tiers.push_back(static_cast<Tier>(tier));
  }
  return tiers;
}

cpu::Activation activationFrom(const std::string& name) {
  if (name == "relu") return cpu::Activation::kRelu;
  if (name == "gelu") return cpu::Activation::kGelu;
  if (name == "geluTanh") return cpu::Activation::kGeluTanh;
  if (name == "silu") return cpu::Activation::kSilu;
  badField("activation", "relu, gelu, geluTanh or silu");
}

Schedule scheduleFrom(const std::string& name) {
  if (name == "zigzag") return Schedule::kZigzag;
  if (name == "diagonal") return Schedule::kDiagonal;
  badField("schedule", "zigzag or diagonal");
}

ModelShape modelFrom(const Napi::Object& object) {
  ModelShape model{};
  model.numLayers = integerField(object, "numLayers");
  model.hiddenSize = integerField(object, "hiddenSize");
  model.ffnSize = integerField(object, "ffnSize");
  model.numHeads = integerField(object, "numHeads");
  model.numKvHeads = integerField(object, "numKvHeads");
  model.headDim = integerField(object, "headDim");
  model.vocabSize = integerField(object, "vocabSize");
  model.embeddingSize = integerField(object, "embeddingSize");
  model.dtype = dataTypeFrom(stringField(object, "dtype"));
  model.tiedEmbeddings = booleanField(object, "tiedEmbeddings");
  model.rmsNorm = stringField(object, "norm") == "rmsNorm";
  model.normEpsilon = static_cast<float>(numberField(object, "normEpsilon"));
  model.preNorm = stringField(object, "normPlacement") == "pre";
  model.finalNorm = booleanField(object, "finalNorm");
  model.learnedPositions = stringField(object, "positions") == "learned";
  model.positionOffset = integerField(object, "positionOffset");
  const auto frequencies =
      typedArrayField<Napi::Float32Array>(object, "ropeInverseFrequencies", napi_float32_array, "a Float32Array");
  model.inverseFrequencies.assign(frequencies.Data(), frequencies.Data() + frequencies.ElementLength());
  model.qkNorm = booleanField(object, "qkNorm");
  model.gatedMlp = booleanField(object, "gatedMlp");
  model.activation = activationFrom(stringField(object, "activation"));
  model.slidingWindow = integerField(object, "slidingWindow");
  model.numExperts = integerField(object, "numExperts");
  model.numActiveExperts = integerField(object, "numActiveExperts");
  model.normalizeTopK = booleanField(object, "normalizeTopK");
  return model;
}

TensorSource tensorFrom(const Napi::Object& object) {
  return {integerField(object, "layer"),
          stringField(object, "role"),
          stringField(object, "path"),
          integerField(object, "byteOffset"),
          dataTypeFrom(stringField(object, "dtype")),
          integerField(object, "rows"),
          integerField(object, "cols"),
          integerField(object, "gpuRows"),
          integerField(object, "cpuRows")};
}

Sequence sequenceFrom(const Napi::Object& object) {
  return {idsField(object, "promptIds"),
          integerField(object, "maxTokens"),
          numberField(object, "temperature"),
          numberField(object, "topP"),
          static_cast<uint64_t>(integerField(object, "seed")),
          idsField(object, "stopIds"),
          integerField(object, "logitsSteps"),
          booleanField(object, "scorePrompt")};
}

template <typename Array, typename Value>
Array typedArray(Napi::Env env, const std::vector<Value>& values) {
  Array array = Array::New(env, values.size());
  std::copy(values.begin(), values.end(), array.Data());
  return array;
}

// Values of every link under its name.
template <typename Value>
void setLinks(Napi::Object& object, const PerLink<Value>& values) {
  for (int link = 0; link < kNumLinks; ++link)
    object.Set(kLinkNames[static_cast<size_t>(link)], static_cast<double>(values[static_cast<Link>(link)]));
}

template <typename Make>
Napi::Object byPhase(Napi::Env env, Make make) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("prefill", make(Phase::kPrefill));
  object.Set("decode", make(Phase::kDecode));
  return object;
}

Napi::Object toJs(Napi::Env env, const SequenceResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("tokenIds", typedArray<Napi::Int32Array>(env, result.tokenIds));
  object.Set("finishReason", finishReasonName(result.finishReason));
  Napi::Array logits = Napi::Array::New(env, result.logits.size());
  for (size_t n = 0; n < result.logits.size(); ++n)
    logits.Set(static_cast<uint32_t>(n), typedArray<Napi::Float32Array>(env, result.logits[n]));
  object.Set("logits", logits);
  if (!result.promptLogProbs.empty())
    object.Set("promptLogProbs", typedArray<Napi::Float32Array>(env, result.promptLogProbs));
  return object;
}

Napi::Object toJs(Napi::Env env, const TraceEvent& event) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("task", kTaskNames[static_cast<size_t>(event.task)]);
  object.Set("startSeconds", event.startSeconds);
  object.Set("endSeconds", event.endSeconds);
  object.Set("block", static_cast<double>(event.block));
  object.Set("step", static_cast<double>(event.step));
  object.Set("layer", static_cast<double>(event.layer));
  object.Set("gpuBatch", static_cast<double>(event.gpuBatch));
  return object;
}

template <typename Value>
Napi::Array toJsArray(Napi::Env env, const std::vector<Value>& values) {
  Napi::Array array = Napi::Array::New(env, values.size());
  for (size_t n = 0; n < values.size(); ++n) array.Set(static_cast<uint32_t>(n), toJs(env, values[n]));
  return array;
}

}  // namespace

double numberField(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsNumber()) badField(name, "a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (std::isnan(number)) badField(name, "a number");
  return number;
}

// Beyond what an int64 holds (a capacity of Infinity) the largest one is meant.
int64_t integerField(const Napi::Object& object, const char* name) {
  constexpr double kLimit = 0x1p62;
  return static_cast<int64_t>(std::clamp(numberField(object, name), -kLimit, kLimit));
}

bool booleanField(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsBoolean()) badField(name, "a boolean");
  return value.As<Napi::Boolean>().Value();
}

std::string stringField(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsString()) badField(name, "a string");
  return value.As<Napi::String>().Utf8Value();
}

Napi::Object objectField(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (!value.IsObject()) badField(name, "an object");
  return value.As<Napi::Object>();
}

DataType dataTypeFrom(const std::string& name) {
  for (const DataType dtype : {DataType::kFloat32, DataType::kFloat16, DataType::kBFloat16})
    if (name == dataTypeName(dtype)) return dtype;
  badField("dtype", "float32, float16 or bfloat16");
}

DeviceKind deviceFrom(const std::string& name) {
  if (name == "cuda") return DeviceKind::kCuda;
  if (name == "cpu") return DeviceKind::kCpu;
  if (name == "emulated") return DeviceKind::kEmulated;
  badField("device", "cuda, cpu or emulated");
}

EngineConfig engineConfigFrom(const Napi::Object& object) {
  EngineConfig config{};
  config.device = deviceFrom(stringField(object, "device"));
  config.numThreads = static_cast<int>(integerField(object, "numThreads"));
  const Napi::Object capacity = objectField(object, "capacityBytes");
  for (const Tier tier : {Tier::kGpu, Tier::kCpu, Tier::kDisk})
    config.capacityBytes[tier] = integerField(capacity, kTierNames[static_cast<size_t>(tier)]);
  const Napi::Object rates = objectField(object, "linkBytesPerSecond");
  config.cpuToGpuRate = numberField(rates, "cpuToGpu");
  config.gpuToCpuRate = numberField(rates, "gpuToCpu");
  config.spillDirectory = stringField(object, "spillDirectory");
  config.quantizationCache = stringField(object, "quantizationCache");
  config.model = modelFrom(objectField(object, "model"));
  const Napi::Array tensors = arrayField(object, "tensors");
  for (uint32_t n = 0; n < tensors.Length(); ++n) config.tensors.push_back(tensorFrom(element(tensors, n, "tensors")));
  config.schedule = scheduleFrom(stringField(object, "schedule"));
  config.gpuBatchSize = integerField(object, "gpuBatchSize");
  config.numGpuBatches = integerField(object, "numGpuBatches");
  config.prefillChunkTokens = integerField(object, "prefillChunkTokens");
  config.weightBits = static_cast<int>(integerField(object, "weightBits"));
  config.kvCacheBits = static_cast<int>(integerField(object, "kvCacheBits"));
  config.sparseValueFraction = numberField(object, "sparseValueFraction");
  config.overlap = booleanField(object, "overlap");
  config.kvTiers = tiersField(object, "kvTiers");
  config.activationTiers = tiersField(object, "activationTiers");
  config.cpuAttention = bytesField(object, "cpuAttention");
  config.trace = booleanField(object, "trace");
  return config;
}

std::vector<Sequence> sequencesFrom(const Napi::Array& array) {
  std::vector<Sequence> sequences;
  for (uint32_t n = 0; n < array.Length(); ++n) sequences.push_back(sequenceFrom(element(array, n, "sequences")));
  return sequences;
}

Napi::Object toJs(Napi::Env env, const PerTier<int64_t>& bytes) {
  Napi::Object object = Napi::Object::New(env);
  for (const Tier tier : {Tier::kGpu, Tier::kCpu, Tier::kDisk})
    object.Set(kTierNames[static_cast<size_t>(tier)], static_cast<double>(bytes[tier]));
  return object;
}

Napi::Object toJs(Napi::Env env, const StepEvent& event) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("block", static_cast<double>(event.block));
  object.Set("step", static_cast<double>(event.step));
  object.Set("sequences", typedArray<Napi::Int32Array>(env, event.sequences));
  object.Set("tokenIds", typedArray<Napi::Int32Array>(env, event.tokenIds));
  Napi::Array finished = Napi::Array::New(env, event.finished.size());
  for (size_t n = 0; n < event.finished.size(); ++n) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("sequence", static_cast<double>(event.finished[n].sequence));
    entry.Set("finishReason", finishReasonName(event.finished[n].reason));
    finished.Set(static_cast<uint32_t>(n), entry);
  }
  object.Set("finished", finished);
  return object;
}

Napi::Object toJs(Napi::Env env, const RunResult& result) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("sequences", toJsArray(env, result.sequences));
  object.Set("numBlocks", static_cast<double>(result.numBlocks));
  object.Set("sharedPrefixTokens", static_cast<double>(result.sharedPrefixTokens));
  object.Set("prefillSeconds", result.seconds[Phase::kPrefill]);
  object.Set("decodeSeconds", result.seconds[Phase::kDecode]);
  object.Set("stageSeconds", byPhase(env, [&](Phase phase) {
               Napi::Object stages = Napi::Object::New(env);
               stages.Set("compute", result.computeSeconds[phase]);
               stages.Set("cpuAttention", result.cpuAttentionSeconds[phase]);
               setLinks(stages, result.linkSeconds[phase]);
               return stages;
             }));
  object.Set("trafficBytes", byPhase(env, [&](Phase phase) {
               Napi::Object links = Napi::Object::New(env);
               setLinks(links, result.linkBytes[phase]);
               return links;
             }));
  object.Set("peakBytes", toJs(env, result.peakBytes));
  object.Set("kvCacheBytes", toJs(env, result.kvCacheBytes));
  object.Set("activationBytes", toJs(env, result.activationBytes));
  object.Set("trace", toJsArray(env, result.trace));
  return object;
}

}  // namespace flexplan
