// Streams and events that end with their owner, and the wait for an event.
#pragma once

#include <mutex>
#include <utility>
#include <vector>

#include "core/relax.h"
#include "cuda/cuda_api.h"
#include "tier/clock.h"

namespace flexplan::cuda {

class OwnedStream {
 public:
  OwnedStream(CudaApi& api, Urgency urgency) : api_(api), stream_(api.createStream(urgency)) {}
  ~OwnedStream() { api_.destroyStream(stream_); }
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  operator Stream() const { return stream_; }

 private:
  CudaApi& api_;
  const Stream stream_;
};

class OwnedEvent {
 public:
  explicit OwnedEvent(CudaApi& api) : api_(&api), event_(api.createEvent()) {}
  OwnedEvent(OwnedEvent&& other) noexcept : api_(other.api_), event_(std::exchange(other.event_, nullptr)) {}
  OwnedEvent& operator=(OwnedEvent&&) = delete;
  ~OwnedEvent() {
    if (event_) api_->destroyEvent(event_);
  }
  operator Event() const { return event_; }

 private:
  CudaApi* api_;
  Event event_;
};

// A thread that sleeps wakes up tens of microseconds late, so short waits are spent awake.
inline void awaitSoon(CudaApi& api, Event event) {
  constexpr double kAwakeSeconds = 30e-6;
  const double until = nowSeconds() + kAwakeSeconds;
  do {
    if (api.isDone(event)) return;
    relax();
  } while (nowSeconds() < until);
  api.await(event);
}

}  // namespace flexplan::cuda
