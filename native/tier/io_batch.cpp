#include "tier/io_batch.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace flexplan {
namespace {
constexpr int kNumIoThreads = 4;
}

IoPool::IoPool() {
  workers_.reserve(kNumIoThreads);
  for (int i = 0; i < kNumIoThreads; ++i) workers_.emplace_back([this] { workerLoop(); });
}

IoPool::~IoPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  workReady_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void IoPool::workerLoop() {
  std::unique_lock lock(mutex_);
  for (;;) {
    workReady_.wait(lock, [&] { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    IoBatch& batch = *waiting_.front();
    waiting_.pop_front();
    const IoBatch::Request request = batch.requests_[batch.next_++];
    if (batch.next_ < batch.requests_.size()) waiting_.push_back(&batch);
    ++batch.inFlight_;
    lock.unlock();
    std::exception_ptr error;
    try {
      batch.execute(request);
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (error && !batch.error_) batch.error_ = error;
    if (--batch.inFlight_ == 0) batch.done_.notify_all();
  }
}

IoBatch::~IoBatch() {
  std::unique_lock lock(pool_.mutex_);
  std::erase(pool_.waiting_, this);
  done_.wait(lock, [&] { return inFlight_ == 0; });
}

void IoBatch::read(const DirectFile& file, int64_t offset, int64_t bytes, std::byte* window, int64_t usefulBytes) {
  const PageWindow pages = PageWindow::around(offset, bytes);
  const int64_t required = pages.skip + bytes;
  for (int64_t at = 0; at < pages.bytes; at += kMaxRequestBytes) {
    const int64_t size = std::min(kMaxRequestBytes, pages.bytes - at);
    requests_.push_back({&file, pages.offset + at, size, std::min(size, required - at), window + at, nullptr});
  }
  usefulBytes_[Link::kDiskToCpu] += usefulBytes;
}

void IoBatch::write(const DirectFile& file, int64_t offset, int64_t bytes, const std::byte* pages,
                    int64_t usefulBytes) {
  for (int64_t at = 0; at < bytes; at += kMaxRequestBytes) {
    const int64_t size = std::min(kMaxRequestBytes, bytes - at);
    requests_.push_back({&file, offset + at, size, 0, nullptr, pages + at});
  }
  usefulBytes_[Link::kCpuToDisk] += usefulBytes;
}

void IoBatch::execute(const Request& request) {
  const Link link = request.source ? Link::kCpuToDisk : Link::kDiskToCpu;
  std::optional<BusyClock::Scope> busy;
  if (meter_) busy.emplace(meter_->busy(phase_, link));
  if (request.source) {
    request.file->write(request.offset, request.bytes, request.source);
  } else {
    request.file->read(request.offset, request.bytes, request.requiredBytes, request.target);
  }
}

void IoBatch::start(Phase phase) {
  if (requests_.empty()) return;
  phase_ = phase;
  if (meter_) {
    for (const Link link : {Link::kDiskToCpu, Link::kCpuToDisk}) meter_->addBytes(phase, link, usefulBytes_[link]);
  }
  const std::lock_guard lock(pool_.mutex_);
  pool_.waiting_.push_back(this);
  pool_.workReady_.notify_all();
}

void IoBatch::wait() {
  std::unique_lock lock(pool_.mutex_);
  done_.wait(lock, [&] { return inFlight_ == 0 && (next_ == requests_.size() || error_); });
  if (error_) std::erase(pool_.waiting_, this);
  done_.wait(lock, [&] { return inFlight_ == 0; });
  requests_.clear();
  usefulBytes_ = {};
  next_ = 0;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace flexplan
