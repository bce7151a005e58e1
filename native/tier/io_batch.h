// Disk transfers in the background: a few threads keep several requests in flight, as fast disks want them.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "tier/direct_file.h"
#include "tier/traffic_meter.h"

namespace flexplan {

class IoBatch;

// Four threads that serve the batches in turn, one request each, so that a small batch does not wait for a large one.
class IoPool {
 public:
  IoPool();
  ~IoPool();
  IoPool(const IoPool&) = delete;
  IoPool& operator=(const IoPool&) = delete;

 private:
  friend class IoBatch;
  void workerLoop();

  std::mutex mutex_;
  std::condition_variable workReady_;
  std::deque<IoBatch*> waiting_;  // batches with requests that no thread has begun
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

// Some reads and writes that are waited for together. Fill it, start() it, wait() for it; then it may be filled again.
// Destroying it drops the requests not begun and waits for the others.
class IoBatch {
 public:
  // `meter` may be null: then nothing is accounted.
  IoBatch(IoPool& pool, TrafficMeter* meter) : pool_(pool), meter_(meter) {}
  ~IoBatch();
  IoBatch(const IoBatch&) = delete;
  IoBatch& operator=(const IoBatch&) = delete;

  // Reads the pages around [offset, offset + bytes) into page-aligned `window` (PageWindow::around(...).bytes of room);
  // the first useful byte is at window + PageWindow::around(...).skip. File and memory must outlive wait().
  void read(const DirectFile& file, int64_t offset, int64_t bytes, std::byte* window) {
    read(file, offset, bytes, window, bytes);
  }
  // The same where only `usefulBytes` of them count as traffic.
  void read(const DirectFile& file, int64_t offset, int64_t bytes, std::byte* window, int64_t usefulBytes);
  // Writes whole pages, of which `usefulBytes` count as traffic.
  void write(const DirectFile& file, int64_t offset, int64_t bytes, const std::byte* pages, int64_t usefulBytes);

  void start(Phase phase);
  // Returns when every request is done. Throws the first failure.
  void wait();
  bool empty() const { return requests_.empty(); }

  // Largest single transfer.
  static constexpr int64_t kMaxRequestBytes = 4 << 20;

 private:
  friend class IoPool;
  struct Request {
    const DirectFile* file;
    int64_t offset;
    int64_t bytes;
    int64_t requiredBytes;
    std::byte* target;        // reads
    const std::byte* source;  // writes
  };
  void execute(const Request& request);

  IoPool& pool_;
  TrafficMeter* const meter_;
  Phase phase_ = Phase::kPrefill;
  PerLink<int64_t> usefulBytes_{};
  std::vector<Request> requests_;
  // Below: guarded by the pool's mutex.
  size_t next_ = 0;
  size_t inFlight_ = 0;
  std::exception_ptr error_;
  std::condition_variable done_;
};

}  // namespace flexplan
