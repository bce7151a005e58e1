// JavaScript values <-> native values. The only place that knows the field names of src/engine/native-addon.ts.
#pragma once

#include <napi.h>

#include <vector>

#include "engine/engine_types.h"

namespace flexplan {

// Read a field; throw Error kBadInput naming it when it is missing or of another type.
double numberField(const Napi::Object& object, const char* name);
int64_t integerField(const Napi::Object& object, const char* name);
bool booleanField(const Napi::Object& object, const char* name);
std::string stringField(const Napi::Object& object, const char* name);
Napi::Object objectField(const Napi::Object& object, const char* name);

DataType dataTypeFrom(const std::string& name);
DeviceKind deviceFrom(const std::string& name);
EngineConfig engineConfigFrom(const Napi::Object& object);
std::vector<Sequence> sequencesFrom(const Napi::Array& array);

Napi::Object toJs(Napi::Env env, const PerTier<int64_t>& bytes);
Napi::Object toJs(Napi::Env env, const StepEvent& event);
Napi::Object toJs(Napi::Env env, const RunResult& result);

}  // namespace flexplan
