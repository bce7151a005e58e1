// Copies over the links of a run, accounted for.
#pragma once

#include <vector>

#include "model/device.h"
#include "tier/io_batch.h"
#include "tier/traffic_meter.h"

namespace flexplan {

class Transfer {
 public:
  Transfer(Device& device, IoPool& io) : device_(device), io_(io) {}

  // Copies over cpuToGpu or gpuToCpu and returns when the bytes have arrived. Nothing to copy costs nothing.
  void copy(Phase phase, Link link, std::span<const CopyPiece> pieces) {
    if (pieces.empty()) return;
    const BusyClock::Scope busy(meter_.busy(phase, link));
    (link == Link::kCpuToGpu ? device_.cpuToGpu() : device_.gpuToCpu()).copy(pieces);
    meter_.addBytes(phase, link, totalBytes(pieces));
  }
  IoPool& io() { return io_; }
  TrafficMeter& meter() { return meter_; }
  Device& device() { return device_; }

 private:
  Device& device_;
  IoPool& io_;
  TrafficMeter meter_;
};

}  // namespace flexplan
