// Measures the engine's own mechanisms: the wait between tasks, direct I/O, the link to the device.
#pragma once

#include <cstdint>
#include <string>

#include "bench/measure.h"
#include "engine/engine_types.h"

namespace flexplan::bench {

// A task handed from one thread to another and back, with the engine's own wait. work: hand-overs of one repetition.
Samples measureTask(int repetitions);

struct DiskSetting {
  std::string directory;
  int64_t fileBytes;
  int64_t requestBytes;  // of one transfer; several are in flight
};
// All of a spill file, past the page cache. work: bytes. Throw Error kNoDiskSpace, kBadInput.
Samples measureDiskRead(const DiskSetting& setting, int repetitions);
Samples measureDiskWrite(const DiskSetting& setting, int repetitions);

struct LinkSetting {
  DeviceKind device;
  Link link;  // kCpuToGpu or kGpuToCpu
  double bytesPerSecond;
  int64_t bytes;
};
// One copy between host memory and the device's. work: bytes. Throws Error kNoDevice.
Samples measureLinkCopy(const LinkSetting& setting, int repetitions);

}  // namespace flexplan::bench
