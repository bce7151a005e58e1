// Measures a device through the operations that the engine gives it: queued one after the other, as the engine queues
// them, and awaited at the end. Operands rotate through more memory than a GPU's cache holds.
#pragma once

#include "bench/measure.h"
#include "model/device.h"

namespace flexplan::bench {

// Settings, work and errors as in measure.h; seconds are those of one operation. Throws Error kNoDevice.
class DeviceMeter {
 public:
  explicit DeviceMeter(DeviceKind kind);
  ~DeviceMeter();

  // Copies `bytes` inside the device's memory. work: bytes read and written.
  Samples memoryCopy(int64_t bytes, int repetitions);
  Samples matmul(const MatmulSetting& setting, int repetitions);
  Samples attention(const AttentionSetting& setting, int repetitions);
  // An operation on next to nothing: one of many in a row, or (pauseSeconds > 0) one alone that is awaited, after the
  // device has had nothing to do for so long. work: launches.
  Samples launch(double pauseSeconds, int repetitions);

 private:
  TierBuffer onDevice(const std::byte* values, int64_t bytes, int64_t copies);
  template <typename Operation>
  Samples sample(int repetitions, double work, Operation operation);

  PerTier<std::unique_ptr<MemoryBudget>> budgets_;
  ThreadPool pool_;
  std::unique_ptr<Device> device_;
};

}  // namespace flexplan::bench
