// The native addon: NativeAddon of src/engine/native-addon.ts.
#include <napi.h>

#include "binding/engine_object.h"
#include "binding/measurements.h"
#include "binding/system_info.h"

namespace {

Napi::Object initialise(Napi::Env env, Napi::Object exports) {
  exports.Set("Engine", flexplan::EngineObject::define(env));
  exports.Set("measure", flexplan::makeMeasurements(env));
  exports.Set("systemInfo", Napi::Function::New(env, flexplan::systemInfo, "systemInfo"));
  return exports;
}

}  // namespace

NODE_API_MODULE(flexplan, initialise)
