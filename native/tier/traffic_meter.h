// What crossed each link in each phase: useful bytes, and the seconds during which anything was crossing.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "tier/clock.h"
#include "tier/tiers.h"

namespace flexplan {

// Seconds during which at least one user was inside: concurrent users do not count twice.
class BusyClock {
 public:
  class Scope {
   public:
    explicit Scope(BusyClock& clock) : clock_(clock) { clock_.enter(); }
    ~Scope() { clock_.leave(); }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    BusyClock& clock_;
  };

  void enter() {
    const std::lock_guard lock(mutex_);
    if (users_++ == 0) since_ = nowSeconds();
  }
  void leave() {
    const std::lock_guard lock(mutex_);
    if (--users_ == 0) seconds_ += nowSeconds() - since_;
  }
  double seconds() const {
    const std::lock_guard lock(mutex_);
    return seconds_;
  }

 private:
  mutable std::mutex mutex_;
  int users_ = 0;
  double since_ = 0;
  double seconds_ = 0;
};

class TrafficMeter {
 public:
  void addBytes(Phase phase, Link link, int64_t bytes) {
    bytes_[phase][link].fetch_add(bytes, std::memory_order_relaxed);
  }
  int64_t bytes(Phase phase, Link link) const { return bytes_[phase][link].load(std::memory_order_relaxed); }
  BusyClock& busy(Phase phase, Link link) { return busy_[phase][link]; }
  double seconds(Phase phase, Link link) const { return busy_[phase][link].seconds(); }

 private:
  PerPhase<PerLink<std::atomic<int64_t>>> bytes_{};
  PerPhase<PerLink<BusyClock>> busy_;
};

}  // namespace flexplan
