// Seconds spent computing, apart from waiting and from what the links take.
#pragma once

#include "tier/clock.h"
#include "tier/tiers.h"

namespace flexplan {

// Used by the compute thread alone.
struct StageClock {
  PerPhase<double> computeSeconds{};
  PerPhase<double> cpuAttentionSeconds{};

  // Adds the scope's time to a stage.
  class Scope {
   public:
    explicit Scope(double& seconds) : seconds_(seconds), start_(nowSeconds()) {}
    ~Scope() { seconds_ += nowSeconds() - start_; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    double& seconds_;
    const double start_;
  };
  Scope compute(Phase phase) { return Scope(computeSeconds[phase]); }
  Scope cpuAttention(Phase phase) { return Scope(cpuAttentionSeconds[phase]); }
};

}  // namespace flexplan
