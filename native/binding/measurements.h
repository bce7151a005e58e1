// The `measure` functions: the profiler's hands.
#pragma once

#include <napi.h>

namespace flexplan {
// NativeMeasurements of src/engine/native-addon.ts.
Napi::Object makeMeasurements(Napi::Env env);
}  // namespace flexplan
