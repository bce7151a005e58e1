#include "binding/measurements.h"

#include <functional>

#include "bench/measure.h"
#include "bench/measure_device.h"
#include "bench/measure_engine.h"
#include "binding/convert.h"
#include "binding/job.h"
#include "core/error.h"

namespace flexplan {
namespace {

using bench::Samples;
// Reads the options on the JavaScript thread; what it returns measures on another.
using Prepare = std::function<std::function<Samples()>(const Napi::Object& options)>;

int intField(const Napi::Object& options, const char* name) { return static_cast<int>(integerField(options, name)); }

DataType storedType(const Napi::Object& options, const char* bits) {
  return integerField(options, bits) == 4 ? DataType::kInt4 : dataTypeFrom(stringField(options, "dtype"));
}

Napi::Value toJs(Napi::Env env, const Samples& samples) {
  Napi::Object object = Napi::Object::New(env);
  Napi::Float64Array seconds = Napi::Float64Array::New(env, samples.seconds.size());
  std::copy(samples.seconds.begin(), samples.seconds.end(), seconds.Data());
  object.Set("seconds", seconds);
  object.Set("work", samples.work);
  return object;
}

Napi::Value measure(const Napi::CallbackInfo& info, const Prepare& prepare) {
  const Napi::Env env = info.Env();
  try {
    if (!info[0].IsObject()) throw Error(ErrorCode::kBadInput, "expected options, got none; pass an object");
    const std::function<Samples()> work = prepare(info[0].As<Napi::Object>());
    return Job::start(env, {.work = [work](Job&) -> Job::ToJs {
                              return [samples = work()](Napi::Env inner) { return toJs(inner, samples); };
                            },
                            .callback = {}});
  } catch (...) {
    const auto deferred = Napi::Promise::Deferred::New(env);
    deferred.Reject(toJsError(env, std::current_exception()).Value());
    return deferred.Promise();
  }
}

struct CommonFields {
  DeviceKind device;
  int repetitions, numThreads;
};
CommonFields commonFields(const Napi::Object& options) {
  const auto device = options.Has("device") ? deviceFrom(stringField(options, "device")) : DeviceKind::kCpu;
  return {device, intField(options, "repetitions"), intField(options, "numThreads")};
}

bench::AttentionSetting attentionSetting(const Napi::Object& options) {
  return {stringField(options, "phase") == "prefill" ? bench::Phase::kPrefill : bench::Phase::kDecode,
          integerField(options, "sequences"),
          integerField(options, "tokens"),
          integerField(options, "numHeads"),
          integerField(options, "numKvHeads"),
          integerField(options, "headDim"),
          storedType(options, "kvCacheBits")};
}

bench::DiskSetting diskSetting(const Napi::Object& options) {
  return {stringField(options, "directory"), integerField(options, "fileBytes"), integerField(options, "requestBytes")};
}

bench::LinkSetting linkSetting(const Napi::Object& options) {
  return {deviceFrom(stringField(options, "device")),
          stringField(options, "link") == kLinkNames[static_cast<size_t>(Link::kCpuToGpu)] ? Link::kCpuToGpu
                                                                                           : Link::kGpuToCpu,
          numberField(options, "linkBytesPerSecond"), integerField(options, "bytes")};
}

}  // namespace

Napi::Object makeMeasurements(Napi::Env env) {
  Napi::Object object = Napi::Object::New(env);
  const auto add = [&](const char* name, Prepare prepare) {
    object.Set(name, Napi::Function::New(
                         env, [prepare](const Napi::CallbackInfo& info) { return measure(info, prepare); }, name));
  };
  add("memoryRead", [](const Napi::Object& options) -> std::function<Samples()> {
    const int64_t bytes = integerField(options, "bytes");
    const auto [device, repetitions, threads] = commonFields(options);
    if (device != DeviceKind::kCpu)
      return [=] { return bench::DeviceMeter(device).memoryCopy(bytes, repetitions); };
    return [=] { return bench::measureMemoryRead(bytes, repetitions, threads); };
  });
  add("matmul", [](const Napi::Object& options) -> std::function<Samples()> {
    const bench::MatmulSetting setting{integerField(options, "tokens"), integerField(options, "rows"),
                                       integerField(options, "cols"), storedType(options, "weightBits")};
    const auto [device, repetitions, threads] = commonFields(options);
    if (device != DeviceKind::kCpu) return [=] { return bench::DeviceMeter(device).matmul(setting, repetitions); };
    return [=] { return bench::measureMatmul(setting, repetitions, threads); };
  });
  add("attention", [](const Napi::Object& options) -> std::function<Samples()> {
    const bench::AttentionSetting setting = attentionSetting(options);
    const auto [device, repetitions, threads] = commonFields(options);
    if (device != DeviceKind::kCpu) return [=] { return bench::DeviceMeter(device).attention(setting, repetitions); };
    return [=] { return bench::measureAttention(setting, repetitions, threads); };
  });
  add("launch", [](const Napi::Object& options) -> std::function<Samples()> {
    const double pause = numberField(options, "pauseSeconds");
    const auto [device, repetitions, threads] = commonFields(options);
    if (device != DeviceKind::kCpu) return [=] { return bench::DeviceMeter(device).launch(pause, repetitions); };
    return [=] { return bench::measureLaunch(pause, repetitions, threads); };
  });
  add("task", [](const Napi::Object& options) {
    return [repetitions = intField(options, "repetitions")] { return bench::measureTask(repetitions); };
  });
  add("diskRead", [](const Napi::Object& options) {
    return [setting = diskSetting(options), repetitions = intField(options, "repetitions")] {
      return bench::measureDiskRead(setting, repetitions);
    };
  });
  add("diskWrite", [](const Napi::Object& options) {
    return [setting = diskSetting(options), repetitions = intField(options, "repetitions")] {
      return bench::measureDiskWrite(setting, repetitions);
    };
  });
  add("linkCopy", [](const Napi::Object& options) {
    return [setting = linkSetting(options), repetitions = intField(options, "repetitions")] {
      return bench::measureLinkCopy(setting, repetitions);
    };
  });
  return object;
}

}  // namespace flexplan
