// The machine's places and paths: the words of src/tiers.ts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace flexplan {

enum class Tier : uint8_t { kGpu, kCpu, kDisk };
enum class Link : uint8_t { kCpuToGpu, kGpuToCpu, kDiskToCpu, kCpuToDisk };
enum class Phase : uint8_t { kPrefill, kDecode };

constexpr int kNumTiers = 3;
constexpr int kNumLinks = 4;
constexpr int kNumPhases = 2;

constexpr std::array<const char*, kNumTiers> kTierNames = {"gpu", "cpu", "disk"};
constexpr std::array<const char*, kNumLinks> kLinkNames = {"cpuToGpu", "gpuToCpu", "diskToCpu", "cpuToDisk"};

// One value per tier, link or phase, indexed by the enum.
template <typename Key, typename Value, size_t N>
struct EnumArray : std::array<Value, N> {
  Value& operator[](Key key) { return std::array<Value, N>::operator[](static_cast<size_t>(key)); }
  const Value& operator[](Key key) const { return std::array<Value, N>::operator[](static_cast<size_t>(key)); }
};
template <typename Value>
using PerTier = EnumArray<Tier, Value, kNumTiers>;
template <typename Value>
using PerLink = EnumArray<Link, Value, kNumLinks>;
template <typename Value>
using PerPhase = EnumArray<Phase, Value, kNumPhases>;

constexpr int64_t roundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
constexpr int64_t roundDown(int64_t value, int64_t multiple) { return value / multiple * multiple; }

}  // namespace flexplan
