// The least that a native test needs: counted checks, named failures, fixed random numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace flexplan::test {

class Checks {
 public:
  // Prints at most the first 20 failures.
  void that(bool ok, const std::string& what) {
    ok ? ++passed_ : ++failed_;
    if (!ok && failed_ <= 20) std::printf("FAILED %s%s\n", context_.c_str(), what.c_str());
  }
  // Named before each failure from here on.
  void setContext(const std::string& context) { context_ = context + ": "; }
  int passed() const { return passed_; }

  // Prints the counts; the exit status.
  int finish() const {
    std::printf("%d passed, %d failed\n", passed_, failed_);
    return failed_ == 0 && passed_ > 0 ? 0 : 1;
  }

 private:
  std::string context_;
  int passed_ = 0, failed_ = 0;
};

// splitmix64: the same numbers on every machine and standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  // In [low, high).
  float uniform(float low = -1, float high = 1) {
    return low + (high - low) * static_cast<float>(static_cast<double>(bits() >> 11) * 0x1p-53);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
  std::vector<float> vector(int64_t size, float low = -1, float high = 1) {
    std::vector<float> values(static_cast<size_t>(size));
    for (float& value : values) value = uniform(low, high);
    return values;
  }

 private:
  uint64_t state_;
};

}  // namespace flexplan::test
