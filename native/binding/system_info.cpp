#include "binding/system_info.h"

#include <fstream>
#include <string>

#include "cpu/ops.h"
#include "cuda/cuda_api.h"

namespace flexplan {
namespace {

// The text after the first `key` of a "key : value" file, without leading blanks.
std::string lookUp(const char* path, const std::string& key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.compare(0, key.size(), key) != 0) continue;
    const size_t colon = line.find(':');
    const size_t begin = colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  return "";
}

// What is free is asked of the one that is used, the first: asking wakes a GPU up.
Napi::Array cudaDevices(Napi::Env env, cuda::CudaApi& api) {
  Napi::Array devices = Napi::Array::New(env);
  for (const cuda::DeviceInfo& info : api.devices()) {
    Napi::Object device = Napi::Object::New(env);
    device.Set("name", info.name);
    device.Set("computeCapability", info.computeCapability);
    device.Set("totalBytes", static_cast<double>(info.totalBytes));
    if (devices.Length() == 0) device.Set("freeBytes", static_cast<double>(api.freeBytes()));
    devices.Set(devices.Length(), device);
  }
  return devices;
}

}  // namespace

Napi::Value systemInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object object = Napi::Object::New(env);
  const std::string cpuName = lookUp("/proc/cpuinfo", "model name");
  object.Set("cpuName", cpuName.empty() ? "unknown" : cpuName);
  object.Set("isa", cpu::isaName());
  Napi::Array isas = Napi::Array::New(env);
  for (const char* const isa : cpu::availableIsas()) isas.Set(isas.Length(), isa);
  object.Set("isas", isas);
  const auto api = cuda::systemCudaApi();
  object.Set("hasCuda", api != nullptr);
  object.Set("cudaDevices", api ? cudaDevices(env, *api) : Napi::Array::New(env));
  return object;
}

}  // namespace flexplan
