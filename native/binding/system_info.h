// What machine this is.
#pragma once

#include <napi.h>

namespace flexplan {
// NativeSystemInfo of src/engine/native-addon.ts.
Napi::Value systemInfo(const Napi::CallbackInfo& info);
}  // namespace flexplan
